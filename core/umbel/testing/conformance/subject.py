"""The transport under test, and where it can be tried."""

from __future__ import annotations

import errno
import itertools
import os
import re
import tempfile
from collections.abc import Collection
from typing import Final, final

from umbel.errors import system_error
from umbel.plugins.loaded import Transport
from umbel.plugins.registry import find_transport
from umbel.transport import Traits
from umbel.values.address import Address

#: So that names of other processes, or of other runs, are never met.
_numbers: Final = itertools.count(1)
_PLACEHOLDER: Final = re.compile(r"{\w*}")
_FILLED_IN: Final = {"{folder}", "{name}"}


@final
class Subject:
    """A transport under test: what it declares, and new addresses to try it at.

    Args:
        scheme_or_template: "tcp", whose traits then say where to listen; or an address
            with `{folder}` and `{name}`, such as "ipc:{folder}/x.sock".

    Raises:
        PluginError: ELIBACC, the transport is broken, or declares nonsense.
        OSError: as `umbel.listen` does for an unknown transport; EINVAL, neither the
            traits nor you say where to listen, or it can make no two ends.

    Attributes:
        transport: loaded.
        traits: what it declares; if nothing, the least that a transport can have.
        template: of addresses to listen at; "" if it can't listen.
    """

    def __init__(self, scheme_or_template: str) -> None:
        scheme, colon, _ = scheme_or_template.partition(":")
        self.transport: Transport = find_transport(scheme)
        declared = self.transport.traits()
        self.traits = Traits(address="") if declared is None else declared
        self.template = scheme_or_template if colon else self.traits.address
        flaw = _flaw_of_capabilities(self.traits.capabilities)
        if self.template and not colon:
            flaw = flaw or _flaw_of_address(self.template, scheme)
        if flaw:
            raise self.transport.complaint("traits", f"declares {flaw}")
        strange = sorted(set(_PLACEHOLDER.findall(self.template)) - _FILLED_IN)
        if strange:
            message = (
                f"{self.template!r} has {', '.join(strange)}: what is filled in is "
                f"{' and '.join(sorted(_FILLED_IN))}"
            )
            raise system_error(errno.EINVAL, message)
        if not self.can_serve and not self.can("pair"):
            message = (
                f"{scheme!r} can't be tried alone: it has neither the hook `pair`, nor "
                "both `listen` and `connect`"
            )
            raise system_error(errno.EINVAL, message)
        if not self.template and self.can_serve:
            message = (
                f"{scheme!r} does not say where it can be tried: implement the hook "
                f"`traits`, or give an address such as {scheme}://{{name}}"
            )
            raise system_error(errno.EINVAL, message)

    @property
    def scheme(self) -> str:
        """By which users name it."""
        return self.transport.scheme

    @property
    def can_serve(self) -> bool:
        """Tell whether it can listen, and connect to that."""
        return self.can("listen") and self.can("connect")

    @property
    def makes_files(self) -> bool:
        """Tell whether each of its listeners is a file, in a folder that we give it.

        A transport whose listeners are files may have other addresses, too, such as
        "ipc:@name": one without `{folder}` is not tried as a file.
        """
        return self.traits.is_filesystem and "{folder}" in self.template

    def declared(self) -> dict[str, object]:
        """Give what it declares, as strings and bools."""
        return {
            "hooks": sorted(self.transport.functions),
            "capabilities": sorted(kind.__name__ for kind in self.traits.capabilities),
            "half_close": self.traits.half_close,
            "shows_abort": self.traits.shows_abort,
            "is_filesystem": self.traits.is_filesystem,
        }

    def can(self, verb: str) -> bool:
        """Tell whether it has the hook of *verb*."""
        return self.transport.can(verb)

    def new_address(self, folder: str) -> Address:
        """Make an address that nobody has used, in *folder* if it is a file."""
        name = f"umbel-check-{os.getpid()}-{next(_numbers)}"
        if "{folder}" in self.template and "{name}" not in self.template:
            folder = os.path.join(folder, name)  # where nobody has used the one name
            os.mkdir(folder)
        text = self.template.replace("{folder}", folder).replace("{name}", name)
        return Address.parse(text)


def _flaw_of_capabilities(kinds: object) -> str:
    if isinstance(kinds, Collection) and all(isinstance(kind, type) for kind in kinds):
        return ""
    return f"capabilities that are no set of classes: {kinds!r}"


def _flaw_of_address(address: object, scheme: str) -> str:
    if not isinstance(address, str):
        return f"the address {address!r}, which is no str"
    try:
        found = Address.parse(address)
    except OSError as error:
        return f"the address {address!r}, which can't be read: {error.strerror}"
    if found.scheme != scheme:
        return f"the address {address!r}, which is of another scheme"
    return ""


def new_folder() -> tempfile.TemporaryDirectory[str]:
    """Make an empty folder with a path that fits into a socket's name."""
    return tempfile.TemporaryDirectory(prefix="umbel-", ignore_cleanup_errors=True)
