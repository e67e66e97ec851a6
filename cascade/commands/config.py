"""Settings of a YAML file as flags of a command."""

from pathlib import Path


def with_config(argv: list[str]) -> list[str]:
    """A command and its flags, those of `--config FILE` read and put before those given, which so win over them.

    Raises ValueError for a file that holds no settings, OSError for one that cannot be read.
    """
    command, flags = argv[0], [part for word in argv[1:] for part in _split(word)]
    if "--config" not in flags[:-1]:
        return argv
    if flags.count("--config") > 1:
        raise ValueError("more than one --config: put all settings into one file")
    at = flags.index("--config")
    return [command, *_settings(Path(flags[at + 1])), *flags[:at], *flags[at + 2 :]]


def _split(word: str) -> list[str]:
    return word.split("=", 1) if word.startswith("--config=") else [word]


def _settings(path: Path) -> list[str]:
    import yaml

    try:
        settings = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} has no settings: write one 'option: value' a line")
    flags = []
    for name, value in settings.items():
        if value is not False:
            values = [] if value is True else value if isinstance(value, list) else [value]
            flags += [f"--{name}", *map(str, values)]
    return flags
