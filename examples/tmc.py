"""The paper on one page: TMC (Teng et al., arXiv 2204.00891) as a plain loop, on the parts of the library.

No resume, no processes, no plan: crops → isolation → loop(extract, associate, four losses, mean teacher). On
one seed its losses are those of `tracklearn.train`. Run it on a tracklet set:

    python examples/tmc.py work/tracklets --epochs 3
"""

import argparse
from collections.abc import Iterator

import numpy as np
import torch

import tracklearn as tl
from tracklearn.core.cluster import associate
from tracklearn.learn import augment, backbone, embed, losses, sample
from tracklearn.learn.fit import bn_group
from tracklearn.learn.heads import adam, classifier
from tracklearn.learn.methods import isolation, tmc
from tracklearn.learn.network import Network
from tracklearn.learn.teacher import Average, teacher_of


def train(
    network: Network, tracklets: tl.Tracklets, crops: tl.Crops, config: tmc.Config, *, seed: int = 0
) -> Iterator[dict[str, float]]:
    """The mean of each loss, after every epoch; `network` is the student and learns in place."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    student = network.to(memory_format=torch.channels_last)
    teacher = teacher_of(student)

    # Isolation (section 3.2): the persons that a tracker mixed up become tracklets of their own.
    if config.isolate:
        features = embed.extract(teacher, crops, tracklets.crop, device="cpu")
        tracklets = tracklets.split(isolation.parts(config, features, tracklets).part)

    step, eps = 0, None
    for _ in range(config.epochs):
        # The teacher's view of every tracklet: the mean over a clip.
        row, owner = sample.clips(tracklets, config.frames_cluster, rng)
        features = embed.extract(teacher, crops, tracklets.crop[row], device="cpu")
        features = embed.pool(features, owner, len(tracklets))

        # Association (section 3.3): DBSCAN joins what was taken apart. The first epoch's eps stays.
        found = associate(
            features, k1=config.k1, k2=config.k2, rho=config.rho, min_samples=config.min_samples, eps=eps
        )
        eps = found.start_eps
        labels = tl.PseudoLabels.of(found.label)

        # A classifier of the clusters for the student, and its running average for the teacher.
        head = classifier(features, labels)
        mean_head = teacher_of(head)
        average = Average([(teacher, student), (mean_head, head)])
        (optimiser,) = adam(
            student, head, learning_rate=config.learning_rate, weight_decay=config.weight_decay
        )
        auto = max(1, round(0.6 * labels.n_clusters))
        plan = sample.batches(
            *(tracklets, labels, auto if config.iterations == "auto" else config.iterations, rng),
            clusters_per_batch=config.clusters_per_batch,
            tracklets_per_cluster=config.tracklets_per_cluster,
            n_frames=config.frames_train,
        )
        n, frames = plan.row.shape[1:]
        for module in (student, teacher):
            module.train()
            module.set_bn_group(bn_group(n, config.samples_per_bn) * frames)

        sums: dict[str, float] = {}
        for tracklet, rows in zip(plan.tracklet, plan.row, strict=True):
            label = torch.as_tensor(labels.label[tracklet])
            images = torch.from_numpy(crops.read(tracklets.crop[rows.ravel()]))
            drawn = augment.draw(len(images), *images.shape[1:3], config.augment, generator)
            pixels = augment.apply(images, drawn, normalise=student.normalise)

            feature, logits = view(student, head, pixels, frames)
            with torch.no_grad():
                soft_feature, soft_logits = view(teacher, mean_head, pixels, frames)

            # The four losses (equations 2-6): hard and soft, each of identity and of triplets.
            distance = losses.pairwise(feature)
            mined = losses.mine(distance, label)
            gap, soft_gap = losses.gap(distance, mined), losses.gap(losses.pairwise(soft_feature), mined)
            terms = {
                "id": losses.identity(logits, label, smoothing=config.label_smoothing),
                "sid": losses.soft_identity(logits, soft_logits),
                "tri": losses.triplet(gap, margin=config.margin, form=config.triplet),
                "stri": losses.soft_triplet(gap, soft_gap),
            }
            soft_id, soft_tri = config.lambda_id, config.lambda_tri
            terms["total"] = (1 - soft_id) * terms["id"] + soft_id * terms["sid"]
            terms["total"] = terms["total"] + (1 - soft_tri) * terms["tri"] + soft_tri * terms["stri"]
            terms["total"].backward()
            optimiser.step()
            optimiser.zero_grad()
            average.update(step=step, alpha=config.alpha)  # the mean teacher (section 3.4)
            step += 1
            sums = {name: sums.get(name, 0.0) + term.item() for name, term in terms.items()}
        yield {name: total / len(plan) for name, total in sums.items()}


def view(network: Network, head: torch.nn.Module, pixels: torch.Tensor, frames: int) -> list[torch.Tensor]:
    """Features before the BN neck and logits behind it, both of tracklets: means over their frames."""
    feature = network(pixels)
    means = [x.view(-1, frames, x.shape[1]).mean(1) for x in (feature, network.neck(feature))]
    return [means[0], head(means[1])]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="TMC as a plain loop")
    parser.add_argument("set", help="a tracklet set, as tracklearn ingest writes it")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=20)
    given = parser.parse_args()
    opened = tl.open_set(given.set)
    crops = opened.crops(128, 64)
    network = backbone.build(backbone.Config(backbone="tiny", height=128, width=64), seed=0)
    # A random start knows nothing of its features' size.
    network.calibrate([crops.read(opened.tracklets.crop[:512])], neck=True)
    config = tmc.Config(epochs=given.epochs, iterations=given.iterations, eps_intra="auto")
    for epoch, means in enumerate(train(network, opened.tracklets, crops, config), 1):
        print(f"epoch {epoch}:", "  ".join(f"{name} {value:.3f}" for name, value in means.items()))
