"""What a person said of who is who, here and of an earlier table, and what of it holds."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path

from tracklearn.app.identities import known
from tracklearn.app.identities.footage import Footage, gather
from tracklearn.app.people import decided
from tracklearn.app.pipeline.estimated import count
from tracklearn.store.identities.folder import Identities
from tracklearn.store.identities.journal import (
    Decision,
    Place,
    Word,
    add_decisions,
    journal_path,
    read_journal,
    read_word,
    write_word,
)
from tracklearn.store.runs import Run


@dataclass(frozen=True, eq=False)
class Heard:
    """What was said, before any of it is kept.

    Args:
        footage: the sets, cut where somebody said so. names: of its parts.
        journal: where decisions are kept.
        told: of earlier tables, what still holds. taken: what of it the journal has not.
        new: what this call says. steps: of the review in the run's gallery.
        cuts: of earlier tables, which the journal has not.
        notes: what came from an earlier table, and what did not, a line each.
    """

    footage: Footage
    names: known.Names
    journal: Path
    told: list[Decision]
    taken: list[Decision]
    new: list[Decision]
    steps: list[Decision]
    cuts: list[tuple[Place, Place]]
    notes: list[str]

    def keep(self) -> tuple[list[Decision], known.Said]:
        """Write to the journal what it has not; all decisions that hold, and what they say of the parts."""
        add_decisions(self.journal, [*self.taken, *self.new], self.cuts)
        followed = {d.key for d in self.told}
        own = [d for d in read_journal(self.journal) if not d.earlier or d.key in followed]
        decisions = own + self.steps
        return decisions, known.said(decisions, self.names, self.journal)

    def write(self, file: Path, decisions: Sequence[Decision]) -> None:
        """Write decisions, and the cuts of the journal, as far as they are about these sets."""
        here = {one.digest for one in self.footage.sets}
        said = _about(Word(tuple(decisions), read_word(self.journal).cuts), here)
        write_word(file, _uncut(said), said.cuts)


def hear(
    run: str | Path,
    sets: Sequence[str | Path],
    *,
    review: str | Path | None,
    same: Sequence[str],
    different: Sequence[str],
    earlier: str | Path | None,
) -> Heard:
    """What is said of some sets; arguments as for `link.identities`.

    Raises:
        FileNotFoundError, ValueError: as `link.identities`.
    """
    opened = Run(run)
    journal = Path(review) if review else journal_path(opened.path)
    footage = gather(run, sets)
    before = _told_before(earlier, opened, journal, {one.digest for one in footage.sets})
    held = read_word(journal)
    cuts = [cut for cut in before.cuts if cut not in held.cuts and cut not in held.uncut]
    while True:
        footage = gather(run, sets, [cut[1] for cut in cuts]) if cuts else footage
        names = known.Names.of(footage)
        new = [names.decision(text, same=True) for text in same]
        new += [names.decision(text, same=False) for text in different]
        steps = known.latest(decided(footage.run.path), names)
        own = read_journal(journal)
        rest = [*(d for d in own if not d.earlier), *steps, *new]
        # Of what was said of earlier tables, that holds which nothing said since contradicts.
        parted = {Decision(False, *cut): cut for cut in cuts}
        told = [*before.decisions, *(d for d in own if d.earlier)]
        holds = set(known.latest([*told, *parted, *rest], names))
        if holds.issuperset(parted):
            break
        footage, cuts = gather(run, sets), [cut for decision, cut in parted.items() if decision in holds]
    told = [d for d in told if d in holds]
    known.said([*told, *parted, *rest], names, journal)  # refused before anything is kept
    there = {d.key for d in held.decisions}
    taken = [d for d in told if d.key not in there]
    notes = _taken_over(earlier, len(taken), len(cuts), footage.run.path, journal)
    return Heard(footage, names, journal, told, taken, new, steps, cuts, notes)


def _told_before(earlier: str | Path | None, run: Run, journal: Path, here: AbstractSet[str]) -> Word:
    """What a person said of an earlier table and this journal cannot know, about tracks of the sets `here`.

    A journal knows what was said of its own tables, and what is no longer in it was taken back. Steps of a
    review are not in it, and go with the gallery of a run that is trained anew.

    Raises:
        DamagedError: as `Identities.word`.
    """
    if earlier is None:
        return Word()
    table = Identities(earlier)
    own = "journal" in table.manifest and _same(table.path / table.manifest["journal"], journal)
    alike = table.manifest["run"] == run.manifest["digest"]
    if alike and (own or "journal" not in table.manifest):
        return Word()
    said = _about(table.word, here)
    told = [d for d in said.decisions if d.step or not own]
    # Their lines are of another file.
    return Word(tuple(replace(d, line=0, step=0, earlier=True) for d in told), () if own else said.cuts)


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _about(word: Word, here: AbstractSet[str]) -> Word:
    """What is said of tracks of some sets, by digest."""
    decisions = tuple(d for d in word.decisions if {d.a.set, d.b.set} <= here)
    return Word(decisions, tuple((a, b) for a, b in word.cuts if {a.set, b.set} <= here))


def _uncut(word: Word) -> list[Decision]:
    """The decisions that are not what a cut says."""
    return [d for d in word.decisions if d.same or (d.a, d.b) not in word.cuts]


def _taken_over(earlier: str | Path | None, decisions: int, cuts: int, run: Path, journal: Path) -> list[str]:
    """Lines on what came from an earlier table, and on what did not."""
    if earlier is None:
        return []
    lines = []
    if decisions:
        lines.append(f"{earlier}: {count(decisions, 'decision')} taken over into {journal}")
    if cuts:
        lines.append(
            f"{earlier}: {count(cuts, 'cut')} taken over into {journal}; tracklearn index {run} SET --resume "
            "makes a gallery follow"
        )
    manifest = Identities(earlier).manifest
    if manifest["decisions"] and "journal" not in manifest:
        lines.append(
            f"{earlier} was made by an older version, which kept no decisions with a table: where they are "
            f"not in {journal}, give their journal by --review"
        )
    return lines
