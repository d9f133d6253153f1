"""What the head of a report on world models says of the test: how many episodes of which kind, and for whom fewer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from jepalab.recipes.stored_world import Stored
from jepalab.recipes.world_bench import Rooms
from jepalab.recipes.world_planning import Planning

GOALS = {
    "cross": "into the other room",
    "same": "within one room",
    "block": "in which the block has to be moved",
    "agent": "in which the agent alone has to move",
    "all": "",
}
SIGREG = (
    "J2 stands for the literature's JEPA with SIGReg: it has slowness and inverse dynamics as well. LeWorldModel's two "
    "losses alone are the arm LeWM, which runs in `jepalab compare two-rooms --preset all` (--num-seeds 3 for three)."
)
CHIEF = ("cross", "block", "all")  # groups of which `Planning.cross_room` says how many


def describe_test(planning: Planning, places: Mapping[str, Rooms | Stored], arms: Collection[str]) -> list[str]:
    """The episodes, the planner, how wide doors are, and how arms that imagine frames are tested, if there are some."""
    stored = [place for place in places.values() if isinstance(place, Stored)]
    groups = groups_in(stored[0]) if stored else ("cross", "same")
    drawn = "starts and goals are states of held-out episodes, none" if stored else "none"
    radii = "" if stored else " A goal counts as reached within 4.5 px (EB-JEPA) or 1.4 px (PLDM)."
    episodes = (
        f"{_count(planning, groups)}, {planning.num_steps} steps each, the same for every arm and seed (seed "
        f"{planning.episode_seed}); {drawn} is solved at the start.{radii}"
    )
    who = "All models but G3 and G4" if {"G3", "G4"} & {*arms} else "All models"
    how = f"{who} have the same {planning.in_words(stored[0].frameskip if stored else 1)}."
    frames = [_describe_frames(planning, groups)] if {"G3", "G4"} & {*arms} else []
    return [episodes, how, *_describe_doors(places), *frames, *([SIGREG] if "J2" in arms else [])]


def describe_untuned(name: str, arms: Sequence[str]) -> list[str]:
    """Which arms do not compete, somewhere or at all, for want of settings; nothing where all have some."""
    search = f"`jepalab tune {name} --arms {' '.join(arms)}`"
    return [f"Left out, for want of tuned settings: {', '.join(arms)}; {search} searches them."] if arms else []


def describe_trials(chosen: Sequence[Mapping[str, Any]], *, usual: int) -> str:
    """How long the trials were by which these settings were chosen, `usual` where they do not say."""
    return f"trials of {' or '.join(f'{num:,}' for num in sorted({of.get('steps', usual) for of in chosen}))} steps"


def groups_in(stored: Stored) -> tuple[str, ...]:
    """Of which kinds of goals these episodes' world has some, the hardest first."""
    scene = stored.scene()
    if scene is None:
        return ("all",)
    return ("block", "agent") if scene.kind.mover else ("cross", "same") if scene.name == "two-rooms" else ("all",)


def _count(planning: Planning, groups: Collection[str]) -> str:
    """How many episodes there are of each group that has some."""
    numbers = {group: planning.cross_room if group in CHIEF else planning.same_room for group in groups}
    parts = [f"{num} {GOALS[group]}".rstrip() for group, num in numbers.items() if num]
    first, *rest = parts
    return " and ".join([first.replace(" ", " episodes ", 1) if " " in first else f"{first} episodes", *rest])


def _describe_frames(planning: Planning, groups: Collection[str]) -> str:
    return (
        "G3 and G4 imagine frame by frame, with an encoder and a decoder at every step: they plan with a tenth of the "
        f"candidates and are tested on {_count(planning.through_frames(), groups)}, the first of the others'. Under 'a "
        "tenth of the search' every model plans as they do, on the same episodes. They push every frame through the "
        "same 64 numbers, without skip connections; published ones are U-Nets."
    )


def _describe_doors(places: Mapping[str, Rooms | Stored]) -> list[str]:
    """How wide the doors are, which decides how hard it is to pass them."""
    rooms = {name: place.env().layouts.door_width for name, place in places.items() if isinstance(place, Rooms)}
    if not rooms:
        return []
    widths = {width: [name for name in rooms if rooms[name] == width] for width in sorted({*rooms.values()})}
    told = "; ".join(f"{width} pixels ({', '.join(names)})" for width, names in widths.items())
    return [f"Width of the doors: {told}. In EB-JEPA and PLDM they are 9 pixels wide."]
