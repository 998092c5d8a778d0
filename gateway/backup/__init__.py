"""Backups of database and blobs in one file, and the way back that revives nobody and forgets no spend (RULES 20)."""
