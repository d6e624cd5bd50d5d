"""Which PostgreSQL functions do more than compute.

Names are compared without schema: `pg_catalog.setval`, `setval` and a user's own `x.setval` count
alike, because search_path decides what an unqualified name means. Built-ins that are not listed
have no effect beyond their result. Functions that users define cannot be seen through: ReadOnly
additionally relies on `default_transaction_read_only=on` upstream and on a login without rights.

Source: PostgreSQL 9.4-18 documentation chapter 9 and contrib; every volatile function of
pg_catalog in PostgreSQL 15 was looked at (the vectors name each).
"""

_EXACT: dict[str, str] = {}


def _add(statement: str, names: str) -> None:
    for name in names.split():
        _EXACT[name] = statement


_add("file_function", "lo_import lo_export pg_read_file pg_read_binary_file pg_stat_file")
_add("file_function", "pg_read_file_old pg_hba_file_rules pg_ident_file_mappings")
_add("file_function", "pg_show_all_file_settings pg_logdir_ls")
_add("write_function", "setval nextval lo_creat lo_create lo_from_bytea lo_open lo_put lo_get")
_add("write_function", "lo_unlink lo_truncate lo_truncate64 lo_close lo_lseek lo_lseek64 lo_tell")
_add("write_function", "lo_tell64 lo_manage loread lowrite loopen lo_oid")
_add("notify", "pg_notify")
_add("text_function", "ts_stat ts_rewrite crosstab crosstab2 crosstab3 crosstab4 crosstabn")
_add("text_function", "crosstab_hash connectby xpath_table")
_add("text_function", "query_to_xml query_to_xmlschema query_to_xml_and_xmlschema")
_add("text_function", "cursor_to_xml cursor_to_xmlschema table_to_xml table_to_xmlschema")
_add("text_function", "table_to_xml_and_xmlschema schema_to_xml schema_to_xmlschema")
_add("text_function", "schema_to_xml_and_xmlschema database_to_xml database_to_xmlschema")
_add("text_function", "database_to_xml_and_xmlschema")
_add("admin_function", "pg_terminate_backend pg_cancel_backend pg_reload_conf pg_promote")
_add("admin_function", "pg_switch_wal pg_switch_xlog pg_import_system_collations pg_nextoid")
_add("admin_function", "pg_export_snapshot pg_extension_config_dump pg_stop_making_pinned_objects")
_add("admin_function", "pg_log_backend_memory_contexts pg_log_standby_snapshot pg_prewarm")
_add("admin_function", "brin_summarize_new_values brin_summarize_range brin_desummarize_range")
_add("admin_function", "gin_clean_pending_list pg_wal_replay_pause pg_wal_replay_resume")
_add("admin_function", "pg_stat_statements_reset pg_create_restore_point postgres_fdw_disconnect")
_add("admin_function", "postgres_fdw_disconnect_all autoprewarm_start_worker")
_add("admin_function", "autoprewarm_dump_now heap_force_kill heap_force_freeze")
_add("admin_function", "pg_stat_force_next_flush pg_truncate_visibility_map")
_add("replication_function", "pg_sync_replication_slots pg_copy_logical_replication_slot")
_add("replication_function", "pg_copy_physical_replication_slot pg_drop_replication_slot")

_PREFIXES: tuple[tuple[str, str], ...] = (
    ("pg_ls_", "file_function"),
    ("pg_file_", "file_function"),
    ("pg_rotate_logfile", "admin_function"),
    ("pg_backup_", "admin_function"),
    ("pg_start_backup", "admin_function"),
    ("pg_stop_backup", "admin_function"),
    ("pg_stat_reset", "admin_function"),
    ("pg_restore_", "admin_function"),
    ("pg_buffercache_evict", "admin_function"),
    ("pg_clear_", "admin_function"),
    ("pg_xlog_replay_", "admin_function"),
    ("binary_upgrade_", "admin_function"),
    ("pg_create_", "replication_function"),
    ("pg_drop_", "replication_function"),
    ("pg_logical_", "replication_function"),
    ("pg_replication_", "replication_function"),
    ("dblink", "text_function"),
)
_LOCKS = ("pg_advisory_", "pg_try_advisory_")
# Views that do nothing but show what such a function reads.
_FILE_VIEWS = frozenset({"pg_hba_file_rules", "pg_ident_file_mappings", "pg_file_settings"})
# These give up locks that the session itself took; connection pools send them on every return.
_UNLOCKS = ("pg_advisory_unlock",)


def effect(name: str) -> str | None:
    """The statement name that calling this function amounts to, or None for a plain read.

    `set_config` is not here: what it does depends on its arguments (see `settings`).
    """
    name = folded(name)
    found = _EXACT.get(name)
    if found is not None:
        return found
    if name.startswith(("pg_", "dblink", "binary_upgrade_")):
        if name.startswith(_LOCKS):
            return None if name.startswith(_UNLOCKS) else "advisory_lock"
        for prefix, statement in _PREFIXES:
            if name.startswith(prefix):
                return statement
    return None


def view_effect(name: str) -> str | None:
    """The statement name that reading this relation amounts to, or None for a plain read."""
    return "file_function" if name in _FILE_VIEWS else None


def folded(name: str) -> str:
    """A name as a server with a Turkish single-byte encoding folds it; the parser does not."""
    return name if name.isascii() else name.replace("\u0130", "i")
