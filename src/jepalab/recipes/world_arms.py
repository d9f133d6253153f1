"""The arms that experiments with world models share, what is searched for each of them, and how scores are printed."""

from __future__ import annotations

from functools import partial

from jepalab.compare.tune import Arm, Knob
from jepalab.recipes import worlds
from jepalab.recipes.world_judging import make_floor

METRIC = "cross_ever_wide"
SLOWNESS = Knob("slowness", 0.1, 1_000.0)  # the same search for all whose embeddings learn and are what plans compare
ARMS: dict[str, Arm] = {
    "J1": Arm("JEPA + VICReg + slowness + inverse dynamics", worlds.vicreg_world, SLOWNESS),
    "J1-A1": Arm("JEPA + VICReg + slowness, no inverse dynamics", partial(worlds.vicreg_world, inverse=0.0), SLOWNESS),
    "J1+2%": Arm("J1 and the rewards of 2 % of the walks", partial(worlds.vicreg_world, rewarded=0.02)),
    "J1+10%": Arm("J1 and the rewards of 10 % of the walks", partial(worlds.vicreg_world, rewarded=0.1)),
    "J1+100%": Arm("J1 and the rewards of all walks", partial(worlds.vicreg_world, rewarded=1.0)),
    "J1-S": Arm("J1 without slowness", partial(worlds.vicreg_world, slowness=0.0)),
    "J1+D": Arm("J1 and a decoder loss", partial(worlds.vicreg_world, reconstruct=1.0), SLOWNESS),
    "J2": Arm("JEPA + SIGReg + slowness + inverse dynamics", worlds.sigreg_world, SLOWNESS),
    "LeWM": Arm(
        "JEPA + SIGReg alone (LeWorldModel)",
        partial(worlds.sigreg_world, slowness=0.0, inverse=0.0),
        Knob("sigreg", 0.01, 10.0),
    ),
    "J3": Arm("JEPA + EMA teacher + slowness + inverse dynamics", worlds.ema_world, SLOWNESS),
    "A1": Arm("JEPA kept up by inverse dynamics alone, slowness", worlds.inverse_world, SLOWNESS),
    "G1": Arm("Pixels of rollouts, slowness", worlds.pixel_world, SLOWNESS),
    "G1-S": Arm("G1 without slowness", partial(worlds.pixel_world, slowness=0.0)),
    "G1+J": Arm("Pixels of rollouts, latent loss, slowness", worlds.pixel_latent_world, SLOWNESS),
    "G2": Arm("Auto-encoder with slowness first, dynamics after", worlds.frozen_autoencoder_world, SLOWNESS),
    "G3": Arm(
        "Next frame in pixels, pixel cost", worlds.frame_world, Knob("decoder_width", 8, 32, scale="power of two")
    ),
    "G4": Arm(
        "Next frame by diffusion, pixel cost",
        worlds.diffusion_world,
        Knob("decoder_width", 8, 32, scale="power of two"),
    ),
    "J1m": Arm("J1 with shuffled actions (floor)", worlds.shuffled_world),
    "R": Arm("Dynamics on a random encoder (floor)", worlds.random_encoder_world),
    "F": Arm("Dynamics on a frozen encoder of yours", worlds.frozen_encoder_world),
    "CHANCE": Arm("Random actions (floor)", partial(make_floor, name="random")),
    "SIM": Arm("The environment itself (ceiling)", partial(make_floor, name="oracle")),
    "REPLAY": Arm("The recorded actions again (ceiling)", partial(make_floor, name="replay")),
}
REWARDED = ("J1+2%", "J1+10%", "J1+100%")
# They differ from another arm in one thing, and have its settings.
LIKE = {"J1m": "J1", **dict.fromkeys(REWARDED, "J1"), "J1-S": "J1", "G1-S": "G1"}
MAIN = ("J1", "J1-A1", "J2", "J3", "G1", "G2", "R", "CHANCE", "SIM")
METRICS = {
    METRIC: "arrived, other room",
    "cross_end_wide": "there at the end, other room",
    "cross_ever_tight": "arrived within 1.4 px, other room",
    "cross_end_tight": "at the end within 1.4 px, other room",
    "tenth_cross_ever_wide": "arrived, other room, a tenth of the search",
    "same_ever_wide": "arrived, same room",
    "same_end_wide": "there at the end, same room",
    "cross_steps_wide": "median steps",
    "ms_per_action": "ms an action",
    "geodesic_rank": "latent distance, by the way",
    "euclidean_rank": "latent distance, by the line",
    "position_r2": "position R²",
    "ahead_12": "error 12 ahead over persistence",
    "ahead_12_px": "pixels off, 12 ahead",
    "action_error": "action told, pixels off",
    "teleport_auroc": "surprised by a jump",
    "recoloured_auroc": "alarmed by a colour",
    "light_accuracy": "light told (0.5 is chance)",
    "television_r2": "television R²",
    "straightness": "straightness",
    "rankme": "RankMe",
}
LOST = {  # how much less often a model arrives
    "lost_to_pixel_cost": "lost by comparing decoded frames",
    "lost_to_noise": "lost under unseen noise",
    "lost_to_colour": "lost with a dot of another colour",
    "lost_to_screen": "lost with another television",
}
