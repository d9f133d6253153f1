"""Where episodes take place, as plain JSON can hold it: an environment by its name, and what it was made with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Literal, NamedTuple, cast, get_args

import torch

from jepalab.envs.actions import FromTheAgent, innermost
from jepalab.envs.environment import Environment
from jepalab.envs.gymnasium_adapters import Worlds, point_maze_worlds, pusht_worlds, reacher_worlds
from jepalab.envs.light import Light
from jepalab.envs.point_maze import PointMaze
from jepalab.envs.television import Television
from jepalab.envs.two_rooms import EB_JEPA_RADIUS, PLDM_RADIUS, TwoRooms
from jepalab.envs.two_rooms_layout import Layouts

SceneName = Literal["two-rooms", "point-maze", "pusht", "point-maze-mujoco", "reacher"]
LayoutName = Literal["fixed", "narrow-door", "random-door", "random-wall", "random-wall-narrow-door"]
TelevisionName = Literal["none", "noise", "video", "episode", "dataset"]
LightName = Literal["none", "idle", "door", "idle-switch", "door-switch"]
MazeName = Literal["UMaze", "Open", "Medium", "Large"]
LAYOUTS: dict[LayoutName, Callable[[], Layouts]] = {
    "fixed": Layouts.fixed,
    "narrow-door": Layouts.narrow_door,
    "random-door": Layouts.random_door,
    "random-wall": Layouts.random_wall,
    "random-wall-narrow-door": Layouts.random_wall_narrow_door,
}
Pairs = Callable[[int, torch.Generator], tuple[Any, Any]]


@dataclass(frozen=True)
class Setting:
    """What an environment is made with; of its own settings those that are not said are the usual ones.

    Args:
        size: height and width of the pictures, of other people's worlds: 96 in pusht, 64 in the others.
        layout: of two-rooms, "fixed" by default; with "narrow-door" the door is 9 pixels wide, not 13; with
            "random-door" the door, with "random-wall" the wall too is drawn for each episode, with
            "random-wall-narrow-door" both of the above.
        television: of two-rooms, "none" by default: "noise" is new at every frame, "video" goes on from the last frame,
            "episode" stays for an episode, "dataset" is always the same.
        screen_share: of two-rooms: share of the picture that the television covers (0.1 by default).
        light: of two-rooms, "none" by default: "idle" means nothing, "door" decides which of two doors is open; the
            agent changes "idle-switch" and "door-switch" by stepping onto them.
        flip: of two-rooms: probability that the light changes when it may (0 by default).
        hold: of two-rooms: steps from one time that the light may change to the next (1 by default).
        num_mazes: of point-maze: how many mazes there are; an episode is in any of them (1 by default).
        maze_seed: of point-maze: from which its mazes are drawn (0 by default).
        maze: of point-maze-mujoco, "UMaze" by default.
    """

    size: int | None = None
    layout: LayoutName | None = None
    television: TelevisionName | None = None
    screen_share: float | None = None
    light: LightName | None = None
    flip: float | None = None
    hold: int | None = None
    num_mazes: int | None = None
    maze_seed: int | None = None
    maze: MazeName | None = None


class Kind(NamedTuple):
    """What is known of an environment by its name.

    make       makes it out of its settings, with so many simulators.
    usual      its settings, and what they are if nothing is said.
    radii      of success by name, the chief one first, in its own units.
    position   which factors together are the position.
    unit       a usual action, in its own units.
    ahead      goals are states of recorded episodes, so many steps after the start; 0 draws them anywhere.
    num_at_once  environments that are advanced together.
    mover      the factor that is the agent's place, where it moves something else: pairs in which it alone has to move
               are told apart from the others.
    """

    make: Callable[[Mapping[str, Any], int], Environment[Any]]
    usual: Mapping[str, Any]
    radii: Mapping[str, float]
    position: tuple[str, ...] = ("position",)
    unit: float = 1.0
    ahead: int = 0
    num_at_once: int = 32
    mover: str = ""


def make_two_rooms(
    *,
    layout: LayoutName = "fixed",
    television: TelevisionName = "none",
    screen_share: float = 0.1,
    light: LightName = "none",
    flip: float = 0.0,
    hold: int = 1,
) -> TwoRooms:
    """Two Rooms by the names of what is in them: see `Setting`. ValueError for a light and a layout of its own."""
    screen = None if television == "none" else Television.showing(television, share=screen_share)
    if light != "none" and layout != "fixed":
        raise ValueError(f"Rooms with a light have two doors that stay, got layout={layout!r} as well.")
    if light == "none":
        return TwoRooms(LAYOUTS[layout](), television=screen)
    is_door, is_switch = light.startswith("door"), light.endswith("-switch")
    lamp = Light(flip=flip, hold=hold, opens_a_door=is_door, changes_when_hit=is_switch)
    return TwoRooms(Layouts.two_doors(), television=screen, light=lamp)


def _two_rooms(settings: Mapping[str, Any], num_simulators: int) -> Environment[Any]:
    return make_two_rooms(**settings)


def _point_maze(settings: Mapping[str, Any], num_simulators: int) -> Environment[Any]:
    return PointMaze.drawn(seed=settings["maze_seed"], num_mazes=settings["num_mazes"])


def _pusht(settings: Mapping[str, Any], num_simulators: int) -> Environment[Any]:
    return FromTheAgent(pusht_worlds(num_simulators, size=settings["size"]))


def _point_maze_mujoco(settings: Mapping[str, Any], num_simulators: int) -> Environment[Any]:
    return point_maze_worlds(num_simulators, maze=settings["maze"], size=settings["size"])


def _reacher(settings: Mapping[str, Any], num_simulators: int) -> Environment[Any]:
    return reacher_worlds(num_simulators, size=settings["size"])


# The wide radius is the published one; the tight one half of it, but where there is a published one as well.
KINDS: dict[SceneName, Kind] = {
    "two-rooms": Kind(
        _two_rooms,
        {"layout": "fixed", "television": "none", "screen_share": 0.1, "light": "none", "flip": 0.0, "hold": 1},
        {"wide": EB_JEPA_RADIUS, "tight": PLDM_RADIUS},
    ),
    "point-maze": Kind(
        _point_maze, {"num_mazes": 1, "maze_seed": 0}, {"wide": EB_JEPA_RADIUS, "tight": PLDM_RADIUS}, unit=0.25
    ),
    "pusht": Kind(
        _pusht,
        {"size": 96},
        {"wide": 20.0, "tight": 10.0},
        ("agent", "block"),
        unit=0.3,
        ahead=25,
        num_at_once=16,
        mover="agent",
    ),
    "point-maze-mujoco": Kind(
        _point_maze_mujoco,
        {"maze": "UMaze", "size": 64},
        {"wide": 0.45, "tight": 0.225},
        unit=0.5,
        ahead=25,
        num_at_once=16,
    ),
    "reacher": Kind(
        _reacher, {"size": 64}, {"wide": 0.05, "tight": 0.025}, ("finger",), unit=0.5, ahead=25, num_at_once=16
    ),
}


@dataclass(frozen=True)
class Scene:
    """An environment by its name, and what it was made with; out of it the environment can be made again.

    ValueError for settings that this environment does not have.
    """

    name: SceneName
    setting: Setting = Setting()

    def __post_init__(self) -> None:
        said = {part.name for part in fields(self.setting) if getattr(self.setting, part.name) is not None}
        if strange := sorted(said - self.kind.usual.keys()):
            raise ValueError(
                f"{self.name} has no {' and no '.join(strange)}, but {', '.join(self.kind.usual)}; leave it out."
            )
        if self.settings.get("size", 1) < 1 or self.settings.get("num_mazes", 1) < 1:
            raise ValueError(f"Wanted a size and a number of mazes of at least 1, got {self.settings}.")

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> Scene | None:
        """The one in which an episode with this metadata was recorded; None if it names none of ours."""
        name, settings = metadata.get("environment"), metadata.get("settings")
        if name not in get_args(SceneName) or not isinstance(settings, Mapping):
            return None
        known = {part.name: settings[part.name] for part in fields(Setting) if part.name in settings}
        return cls(cast(SceneName, name), Setting(**known))

    @property
    def kind(self) -> Kind:
        return KINDS[self.name]

    @property
    def settings(self) -> dict[str, Any]:
        """All settings that the environment has, with the usual ones where nothing was said."""
        said = {name: getattr(self.setting, name) for name in self.kind.usual}
        return {name: usual if said[name] is None else said[name] for name, usual in self.kind.usual.items()}

    def env(self, num_simulators: int = 1) -> Environment[Any]:
        """The environment. Other people's worlds are to be closed: see `close`.

        num_simulators  of other people's worlds: as many as are advanced together.

        Raises:
            ValueError: a world of other people whose package is missing.
        """
        return self.kind.make(self.settings, num_simulators)

    def metadata(self) -> dict[str, Any]:
        """What `of` reads."""
        return {"environment": self.name, "settings": self.settings, "position": [*self.kind.position]}


def anywhere(env: Environment[Any], *, min_distance: float) -> dict[str, Pairs]:
    """By group, what draws starts and goals anywhere: in two rooms in different ones and in the same."""
    inside = innermost(env)
    if isinstance(inside, TwoRooms):
        return {
            "cross": partial(inside.random_pairs, rooms="different", min_distance=min_distance),
            "same": partial(inside.random_pairs, rooms="same", min_distance=min_distance),
        }
    return {"all": partial(env.random_pairs, min_distance=min_distance)}


def is_fast(env: Environment[Any]) -> bool:
    """Whether thousands of its states are advanced and drawn in a moment, as our own environments do it."""
    return not isinstance(innermost(env), Worlds)


def close(env: Environment[Any]) -> None:
    """Closes what an environment holds open."""
    inside = innermost(env)
    if isinstance(inside, Worlds):
        inside.close()
