"""Why tiles are not handed out, or not published."""

from __future__ import annotations

from audit.errors import AuditError


class NotCovered(AuditError):
    """A tile that reaches beyond the checkpoint that is shown: no signature covers it (yet)."""

    code = "TILE_NOT_COVERED"


class TargetForeign(AuditError):
    """Where the log is to be published lies something that is no beginning of it."""

    code = "TLOG_TARGET_FOREIGN"

    def __init__(self, why: str) -> None:
        super().__init__(
            f"what lies at the place of FLG_TLOG_PUBLISH {why}: nothing is published there any more. "
            "Name an empty place, or find out who wrote there (docs/audit-log.md)."
        )


class EntriesUnsigned(AuditError):
    """The entries in the database do not give the root that was signed: they are not published."""

    code = "TLOG_ENTRIES_UNSIGNED"

    def __init__(self, where: str) -> None:
        super().__init__(
            f"{where} does not lead to the signed root: nothing is published any more. Run `fl-gateway audit "
            "rebuild`, which mends the tree's tables, or names the entries that were changed."
        )
        self.where = where
