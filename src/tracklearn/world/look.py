"""How a person looks: body, clothes, bag and gait, drawn from (people_seed, pid)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Colour = tuple[int, int, int]

PALETTE: tuple[Colour, ...] = (
    (188, 38, 44),  # red
    (34, 46, 104),  # navy
    (226, 224, 218),  # white
    (38, 37, 40),  # black
    (124, 126, 130),  # grey
    (42, 122, 72),  # green
    (220, 170, 48),  # mustard
    (34, 142, 150),  # teal
    (112, 168, 220),  # sky
    (228, 132, 160),  # pink
    (112, 62, 140),  # purple
    (112, 76, 52),  # brown
    (208, 188, 152),  # beige
    (224, 112, 40),  # orange
    (108, 114, 56),  # olive
    (116, 30, 52),  # burgundy
)

# Which colours people wear: all of the palette, its brighter half or its darker half.
CLOTHES: dict[str, tuple[Colour, ...]] = {
    "any": PALETTE,
    "bright": tuple(c for c in PALETTE if 0.3 * c[0] + 0.59 * c[1] + 0.11 * c[2] >= 110),
    "dark": tuple(c for c in PALETTE if 0.3 * c[0] + 0.59 * c[1] + 0.11 * c[2] < 110),
}
_SKIN: tuple[Colour, ...] = ((240, 205, 178), (226, 180, 146), (196, 146, 110), (150, 102, 72), (98, 66, 48))
_HAIR: tuple[Colour, ...] = ((32, 26, 24), (70, 46, 32), (120, 82, 46), (196, 160, 96), (150, 150, 150))
_FAMILY = 4  # people who share two colours and differ in layout, pattern and bag


@dataclass(frozen=True)
class Look:
    """One person's body, clothes, bag and gait; lengths in metres unless said otherwise."""

    height: float
    girth: float  # width factor of torso and limbs
    head: float  # size factor of the head
    skin: Colour
    hair: Colour
    hair_style: str  # short, long, bun, bald, cap, beanie
    hat: Colour
    top: Colour
    top2: Colour
    pattern: str  # plain, bands, pinstripes, checks, twotone, print, yoke, open
    count: int  # stripes or check rows
    sleeve: str  # short, long, contrast
    hem: float  # lower end of the top as a fraction of the height: 0.47 shirt, 0.40 jacket, 0.27 coat
    bottom: Colour
    legwear: str  # trousers, wide, shorts, skirt
    shoes: Colour
    bag: str  # none, backpack, shoulder, hand
    bag_colour: Colour
    speed: float  # metres per second
    stride: float  # length of two steps as a fraction of the height
    swing: float  # amplitude of the arms, radians
    step: float  # amplitude of the thighs, radians
    sway: float  # side-to-side movement of the body as a fraction of the height
    phase: float  # radians


def look(people_seed: int, pid: int, clothes: str = "any") -> Look:
    """The look of one person, the same in every camera and every process.

    Four neighbouring pids share two clothing colours and wear them the other way round, striped, checked
    or halved, so that the amounts of colour alone do not tell them apart.

    Args:
        people_seed: seed of the population, ≥ 0.
        pid: person, ≥ 0.
        clothes: name in `CLOTHES`.
    """
    palette = CLOTHES[clothes]
    family, member = divmod(pid, _FAMILY)
    shared = np.random.default_rng([people_seed, family, 11])
    first, second = (palette[i] for i in shared.choice(len(palette), 2, replace=False))
    role = int(shared.permutation(_FAMILY)[member])
    bags = [str(b) for b in shared.permutation(["none", "backpack", "shoulder", "hand"])]
    rng = np.random.default_rng([people_seed, pid, 12])

    def pick(options: tuple[str, ...], weights: tuple[float, ...]) -> str:
        return str(rng.choice(options, p=np.array(weights) / sum(weights)))

    def shade(colour: Colour) -> Colour:
        value = np.clip(np.array(colour) * rng.uniform(0.92, 1.08) + rng.normal(0, 5, 3), 12, 244)
        return (int(value[0]), int(value[1]), int(value[2]))

    def any_colour() -> Colour:
        return shade(palette[int(rng.integers(len(palette)))])

    a, b = (first, second) if role in (0, 2) else (second, first)
    if role < 2:  # plain layouts, one the reverse of the other
        pattern = pick(("plain", "print", "open"), (3, 2, 1))
        detail = any_colour() if pattern != "plain" else b
        bottom = b
    else:  # both colours in the top
        pattern = pick(("bands", "pinstripes", "checks", "twotone", "yoke"), (3, 2, 2, 2, 1.5))
        detail, bottom = b, (a if rng.random() < 0.5 else b)
    hem = float(rng.choice([0.47, 0.41, 0.29], p=[0.6, 0.22, 0.18]))
    sleeve = pick(("short", "long", "contrast"), (1.2, 2, 0.8)) if hem > 0.45 else "long"
    return Look(
        height=float(np.clip(rng.normal(1.73, 0.09), 1.52, 1.95)),
        girth=float(rng.uniform(0.88, 1.28)),
        head=float(rng.uniform(0.95, 1.12)),
        skin=_SKIN[int(rng.integers(len(_SKIN)))],
        hair=_HAIR[int(rng.integers(len(_HAIR)))],
        hair_style=pick(("short", "long", "bun", "bald", "cap", "beanie"), (4, 3, 1, 0.8, 1.3, 1)),
        hat=any_colour(),
        top=shade(a),
        top2=shade(detail),
        pattern=pattern,
        count=int(rng.integers(3, 6)),
        sleeve=sleeve,
        hem=hem,
        bottom=shade(bottom),
        legwear=pick(("trousers", "wide", "shorts", "skirt"), (4, 1.5, 1.5, 2)),
        shoes=any_colour(),
        bag=bags[member],
        bag_colour=any_colour(),
        speed=float(rng.uniform(1.25, 1.75)),
        stride=float(rng.uniform(0.72, 0.92)),
        swing=float(rng.uniform(0.25, 0.65)),
        step=float(rng.uniform(0.38, 0.52)),
        sway=float(rng.uniform(0.004, 0.016)),
        phase=float(rng.uniform(0, 2 * np.pi)),
    )
