"""Write `.env.example` and the README's table of settings: `python -m tests.core.settings_documents`."""

import re
from pathlib import Path

from app.core.config import describe_settings

_ROOT = Path(__file__).resolve().parents[2]
ENV_FILE, README = _ROOT / ".env.example", _ROOT / "README.md"
_HEAD = "| variable | default | meaning |\n|---|---|---|\n"


def make_env_file() -> str:
    """Return `.env.example`: addresses are commented out, because without one a server is started."""
    return "\n".join(
        f"# {meaning}\n{'# ' if name.endswith('_URL') else ''}{name}={default}\n"
        for name, default, meaning in describe_settings()
    )


def make_readme_table() -> str:
    rows = (
        f"| `{name}` | {f'`{default}`' if default else ''} | {meaning} |\n"
        for name, default, meaning in describe_settings()
    )
    return _HEAD + "".join(rows)


def main() -> None:
    ENV_FILE.write_text(make_env_file())
    table = make_readme_table()
    README.write_text(re.sub(re.escape(_HEAD) + r"(\|.*\n)+", lambda _: table, README.read_text()))


if __name__ == "__main__":
    main()
