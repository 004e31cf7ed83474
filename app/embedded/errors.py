"""What goes wrong with an embedded server, each in one sentence a user can act on."""


class EmbeddedError(Exception):
    """An embedded server cannot start; the message is one sentence to be shown as it is."""


class PortTaken(EmbeddedError):
    """Another process listens on the port."""


class FolderTaken(EmbeddedError):
    """Another process holds the data folder."""
