"""Which PostgreSQL settings a restricted session may change.

An allow-list: what changes how values look, how long work may take or how plans are made. Guarded
are the settings that would undo a policy (role, session_authorization, the read-only switches)
and those after which the server would read a text differently from the parser
(standard_conforming_strings, client encodings whose second byte may be a quote or backslash).

Source: PostgreSQL 17 documentation chapter 20; guc.c compares names without regard to ASCII case.
"""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ALLOWED = _words(
    """
    application_name array_nulls bytea_output client_min_messages cursor_tuple_fraction datestyle
    default_text_search_config default_transaction_deferrable default_transaction_isolation
    effective_cache_size escape_string_warning extra_float_digits from_collapse_limit geqo
    geqo_threshold gin_fuzzy_search_limit idle_in_transaction_session_timeout idle_session_timeout
    intervalstyle jit join_collapse_limit lc_monetary lc_numeric lc_time lock_timeout
    plan_cache_mode quote_all_identifiers random_page_cost row_security search_path seed
    seq_page_cost statement_timeout synchronize_seqscans tcp_keepalives_count tcp_keepalives_idle
    tcp_keepalives_interval timezone transaction_deferrable transaction_isolation
    transaction_timeout xmlbinary xmloption
    """
)
READ_ONLY_SWITCHES = frozenset({"transaction_read_only", "default_transaction_read_only"})
GUARDED = _words(
    """
    role session_authorization session_replication_role allow_system_table_mods
    local_preload_libraries session_preload_libraries dynamic_library_path lo_compat_privileges
    is_superuser jit_provider
    """
)
# Encodings in which every byte below 0x80 is that ASCII character, whatever stands before it.
_SAFE_ENCODINGS = _words(
    """
    utf8 unicode sqlascii latin1 latin2 latin3 latin4 latin5 latin6 latin7 latin8 latin9 latin10
    iso88591 iso88592 iso88593 iso88594 iso88595 iso88596 iso88597 iso88598 iso88599 iso885910
    iso885913 iso885914 iso885915 iso885916 win866 win874 win1250 win1251 win1252 win1253 win1254
    win1255 win1256 win1257 win1258 windows1250 windows1251 windows1252 windows1253 windows1254
    windows1255 windows1256 windows1257 windows1258 windows866 windows874 win koi8 koi8r koi8u
    abc tcvn tcvn5712 vscii alt eucjp euckr euccn euctw eucjis2004
    """
)
_UNSAFE_ENCODINGS = _words(
    """
    sjis shiftjis mskanji win932 windows932 shiftjis2004 big5 win950 windows950 gbk win936
    windows936 gb18030 uhc win949 windows949 johab
    """
)
_ON = frozenset({"on", "true", "yes", "1"})
UNKNOWN = "\0unknown"  # a value that is not a constant


def _encoding(value: str) -> str:
    return "".join(c for c in value.lower() if c.isalnum())


def is_unsafe_encoding(value: str) -> bool:
    """Whether the server reports an encoding in which the parser's reading cannot be trusted."""
    return _encoding(value) in _UNSAFE_ENCODINGS


def judge(name: str, value: str | None) -> str:
    """The statement name that changing this setting amounts to.

    :param value: the new value as text; None = RESET or DEFAULT; `UNKNOWN` = not a constant.
    """
    # A server with a Turkish single-byte encoding folds a dotted capital I to i.
    name = name.replace("\u0130", "i").lower()
    if name == "client_encoding":
        if value is None or _encoding(value) in _SAFE_ENCODINGS:
            return "set"
        return "set_parser"
    if name == "standard_conforming_strings":
        # Every dump begins by setting it to what it is anyway.
        return "set_other" if value is not None and value.lower() in _ON else "set_parser"
    if name in ALLOWED or name.startswith("enable_"):
        return "set"
    if name in READ_ONLY_SWITCHES:
        return "set_read_write"
    if name in GUARDED:
        return "set_guarded"
    return "set_other"
