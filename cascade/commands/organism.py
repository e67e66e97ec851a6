"""From the words after `cascade simulate` to an organism and its settings."""

from cascade.commands.options import Flags
from cascade.entry import UsageError, processes
from cascade.generation.simulation import SimulateSettings
from cascade.simulators.catalogue import ORGANISMS

_ABOUT = {name: organism.about for name, organism in ORGANISMS.items()} | {
    "auto": "the simulator, and its numbers, chosen for the images of --like FOLDER"
}


def simulation(words: list[str], flags: list[Flags]) -> None:
    """Do what `cascade simulate` was asked for; the organism's flags are appended to `flags` as soon as they are known.

    Raises `UsageError` for words that cannot be.
    """
    name = words[0] if words else ""
    if name in ("-h", "--help"):
        organisms = "\n".join(f"  {name:11}{about}" for name, about in _ABOUT.items())
        print(
            "usage: cascade simulate ORGANISM --output_dir … [other flags]\n\nAnnotations without images, of:\n\n"
            f"{organisms}\n\ncascade simulate ORGANISM --help lists the flags of one."
        )
        return
    if name not in _ABOUT:
        said = f"there is no organism {name}" if name else "simulate takes an organism and its flags"
        raise UsageError(f"{said}: {', '.join(_ABOUT)}")
    flags.append(simulation_flags(name))
    given = flags[0].given(words[1:])
    if given is None:
        return
    processes()
    from cascade.commands.simulate import settings_of, simulate

    settings = SimulateSettings(**given[0])
    simulate(*settings_of(name, settings, given[1]), settings)


def simulation_flags(organism: str) -> Flags:
    """The flags of `simulate` with an organism."""
    known = ORGANISMS["nuclei" if organism == "auto" else organism]
    about = f"Annotations without images: {_ABOUT[organism]}. Interrupted, the same command goes on where it was."
    return Flags(f"simulate {organism}", about, (SimulateSettings, known.settings_class()))
