"""Notices: what somebody must look at is told by e-mail or webhook, once, and names nobody but a case."""

from gateway.notices.filing import file_notice
from gateway.notices.notice import Notice, NoticeKind, notice_of_alarm
from gateway.notices.targets import parse_targets

__all__ = [
    "Notice",
    "NoticeKind",
    "file_notice",
    "notice_of_alarm",
    "parse_targets",
]
