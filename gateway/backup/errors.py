"""What can be wrong with a backup or a restore, and what to do."""

from __future__ import annotations

from gateway.errors import GatewayError


class BackupError(GatewayError):
    """A backup or a restore cannot go on."""

    code, title = "BACKUP_FAILED", "The backup or the restore cannot go on"


class BadBackup(BackupError):
    """The file is no backup, or not the whole of one; nothing was restored from it."""

    code, title = "BACKUP_DAMAGED", "The backup is damaged"


class NotEmpty(BackupError):
    """A backup is restored into an empty database alone."""

    code, title = "RESTORE_NOT_EMPTY", "The database is not empty"


class Mismatch(BackupError):
    """The backup, the state, the key store or the bundle do not belong together."""

    code, title = "RESTORE_MISMATCH", "The parts do not belong together"


class LogIncomplete(BackupError):
    """Entries that were signed are neither in the backup nor in the bundle."""

    code, title = "RESTORE_LOG_INCOMPLETE", "Signed entries of the log are missing"
