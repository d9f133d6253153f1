"""The geometry of embeddings as one instrument: a diagnosis to read beside the probes, never a score."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from jepalab.instruments.geometry import alpha_req, collapse_meters, effective_rank, uniformity
from jepalab.instruments.labelled import LabelledSubject, tokens

NUM_ROWS = 5_000
NUM_WITH_TOKENS = 512


def sample_geometry(subject: LabelledSubject, *, num_samples: int = NUM_ROWS) -> dict[str, float]:
    """RankMe (uncentred and centred), effective rank, alpha-ReQ, uniformity, and the shares of the tokens' variance.

    On the pooled output for up to num_samples test samples. What is undefined is left out: alpha-ReQ of a collapsed
    embedding, token shares of an encoder with one token.
    """
    z = subject.test.z[:num_samples]
    scores = collapse_meters(z) | {"effective_rank": effective_rank(z), "uniformity": uniformity(z)}
    if scores["rankme_centred"] > 4:
        law = alpha_req(z)
        scores |= {"alpha_req": law.slope, "alpha_req_fit_r2": law.r2}
    seen = tokens(subject, "test", NUM_WITH_TOKENS).z
    return scores if seen.shape[1] == 1 else scores | token_geometry(seen)


def token_geometry(z: Float[Tensor, "n t d"]) -> dict[str, float]:
    """How much of the tokens' variance their position explains, and how much the image: a check for a shortcut.

    position_share        of the variance of single tokens, the part that position alone explains: near 1, tokens say
                          where they are and not what is there. Corrected for the noise of a mean over n images.
    image_share           the part that the image alone explains, corrected alike; mean pooling keeps this part.
    token_std_positions   root mean square over dimensions of the spread across the positions of one image.
    token_std_images      the same across the images at one position; 0 if all images look alike.

    All are left out where the tokens do not vary at all. Needs two images and two tokens.
    """
    num_images, num_tokens, _ = z.shape
    if num_images < 2 or num_tokens < 2:
        raise ValueError(f"wanted at least 2 images of at least 2 tokens, got {num_images} of {num_tokens}")
    z = z.double()
    across_images = float(z.var(dim=0).sum(dim=-1).mean())
    across_positions = float(z.var(dim=1).sum(dim=-1).mean())
    # A mean over n rows still holds 1 / n of the variance within them: analysis of variance takes it out.
    position = float(z.mean(dim=0).var(dim=0).sum()) - across_images / num_images
    image = float(z.mean(dim=1).var(dim=0).sum()) - across_positions / num_tokens
    scores = {
        "token_std_positions": (across_positions / z.shape[2]) ** 0.5,
        "token_std_images": (across_images / z.shape[2]) ** 0.5,
    }
    if across_images + across_positions == 0:
        return {}
    return scores | {
        "position_share": max(0.0, position) / (max(0.0, position) + across_images),
        "image_share": max(0.0, image) / (max(0.0, image) + across_positions),
    }
