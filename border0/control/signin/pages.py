"""The five pages: set-up, sign-in, second factor, confirm device, done.

Source: HTML Living Standard (autocomplete tokens); twisted.web.template escapes every text and
attribute, so no page is built from strings. No script, no inline style; a page is a form that
works in any browser.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.web.template import Tag, flattenString, tags

from border0.control.signin.grants import key_fingerprint, shown
from border0.control.signin.model import Account, Grant
from border0.secrets import Secret

POLICY = (
    "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'"
)
_DOCTYPE = b"<!DOCTYPE html>\n"


async def html(title: str, *content: Any) -> bytes:
    """A whole page."""
    page = tags.html(
        tags.head(
            tags.meta(charset="utf-8"),
            tags.meta(name="viewport", content="width=device-width, initial-scale=1"),
            tags.meta(name="robots", content="noindex"),
            tags.title(f"{title} \u00b7 border0"),
            tags.link(rel="stylesheet", href="/signin.css"),
        ),
        tags.body(Tag("main")(tags.p("border0", class_="brand"), tags.h1(title), *content)),
        lang="en",
    )
    return _DOCTYPE + await flattenString(None, page)


def setup(
    hidden: Mapping[str, str],
    values: Mapping[str, str],
    account: Account | None,
    totp: Secret,
    otpauth: str,
    error: str,
) -> Tag:
    """Make the first administrator, or let a user set their first password.

    :param account: the user whom the link is for; None for the first administrator.
    :param otpauth: `totp` as the address that opens an authenticator app.
    """
    if account is None:
        words = "Make the first administrator of this server. The link works once."
        label = "Make the administrator"
        login: Any = _field(
            "E-mail or login", "login", values, autocomplete="username", autocapitalize="none"
        )
    else:
        words = "Choose the password that you will sign in with. The link works once."
        label = "Set the password"
        # Password managers look for the name in a field.
        login = [
            tags.p("You will sign in as ", tags.strong(account.login), "."),
            tags.input(type="hidden", name="login", value=account.login, autocomplete="username"),
        ]
    return _form(
        "/setup",
        hidden,
        tags.p(words),
        _error(error),
        _field("Name", "name", values, autocomplete="name"),
        login,
        _field("Password", "password", {}, kind="password", autocomplete="new-password"),
        tags.p("At least 12 characters. Three or four words are good.", class_="hint"),
        _field("Password again", "again", {}, kind="password", autocomplete="new-password"),
        tags.h2("Second factor"),
        tags.p(
            "Add this key to an authenticator app, then type the six digits that it shows. "
            "To do without, leave them empty."
        ),
        tags.p(tags.code(_grouped(totp.reveal())), class_="key"),
        tags.p(tags.a("Add it to the app on this device", href=otpauth)),
        _code_field("Code of the app", required=False, digits=True),
        tags.button(label, type="submit"),
    )


def sign_in(
    hidden: Mapping[str, str], values: Mapping[str, str], error: str, reason: str = ""
) -> Tag:
    """Name and password; the `reason` says what for."""
    first = {"autofocus": "autofocus"}
    login = _field(
        "E-mail or login",
        "login",
        values,
        autocomplete="username",
        autocapitalize="none",
        **({} if values.get("login") else first),
    )
    password = _field(
        "Password",
        "password",
        {},
        kind="password",
        autocomplete="current-password",
        **(first if values.get("login") else {}),
    )
    return _form(
        "/sign-in",
        hidden,
        tags.p(reason) if reason else "",
        _error(error),
        login,
        password,
        tags.button("Sign in", type="submit"),
    )


def second_factor(hidden: Mapping[str, str], error: str) -> Tag:
    """The code of an authenticator app, or a recovery code."""
    return _form(
        "/sign-in/second-factor",
        hidden,
        tags.p("Type the code that your authenticator app shows, or one of your recovery codes."),
        _error(error),
        _code_field("Code", required=True),
        tags.button("Sign in", type="submit"),
    )


def enter_code(hidden: Mapping[str, str], code: str, error: str) -> Tag:
    """The short code that the machine shows."""
    return _form(
        "/device",
        hidden,
        tags.p(
            "Is this the code that your machine shows?"
            if code and not error
            else "Type the code that your machine shows."
        ),
        _error(error),
        _field(
            "Code",
            "code",
            {"code": code},
            css="code",
            autocomplete="off",
            autocapitalize="characters",
            spellcheck="false",
            maxlength="16",
            **({} if code else {"autofocus": "autofocus"}),
        ),
        tags.button("Go on", type="submit"),
    )


_PURPOSE = {
    "login": "sign in the command line as you",
    "device": "join your network as your device",
    "connector": "join your network as a connector",
}


def confirm(hidden: Mapping[str, str], grant: Grant, account: Account, error: str) -> Tag:
    """What the machine is, for its owner to compare."""
    return _form(
        "/device/confirm",
        hidden,
        tags.p("A machine wants to ", tags.strong(_PURPOSE[grant.purpose]), "."),
        tags.p(shown(grant.user_code), class_="big"),
        tags.dl(
            tags.dt("Machine"),
            tags.dd(grant.name),
            tags.dt("Key"),
            tags.dd(key_fingerprint(grant.public_key), class_="mono"),
            tags.dt("Asks from"),
            tags.dd(grant.address),
            tags.dt("You are"),
            tags.dd(account.login),
        ),
        tags.p(
            "Allow it only if you started this yourself just now, and the machine shows the same "
            "code and key.",
            class_="note",
        ),
        _error(error),
        tags.button("Allow", type="submit", name="answer", value="allow"),
        tags.button("Refuse", type="submit", name="answer", value="refuse", class_="plain"),
    )


def done(
    hidden: Mapping[str, str],
    account: Account,
    text: str,
    recovery: Sequence[Secret] = (),
    command: str = "",
) -> list[Tag]:
    """Nothing more to do here.

    :param command: what to type on one's own machine, if it is to go on there.
    """
    content: list[Tag] = []
    if text:
        content.append(tags.p(text, class_="note"))
    content.append(tags.p("You are signed in as ", tags.strong(account.login), "."))
    if recovery:
        content += [
            tags.h2("Recovery codes"),
            tags.p("Each works once in place of the app. They are shown only now: keep them safe."),
            tags.ul(
                *(tags.li(tags.code(code.reveal())) for code in recovery),
                class_="codes",
            ),
        ]
    if command:
        content += [
            tags.h2("Next"),
            tags.p("On your own machine, sign in the command line:"),
            tags.p(tags.code(command), class_="key"),
            tags.p("It shows a code. ", tags.a("Type it here", href="/device"), "."),
        ]
    leave = tags.button("Sign out", type="submit", class_="plain")
    return [*content, _form("/sign-out", hidden, leave)]


def message(text: str, link: str = "", label: str = "") -> list[Tag]:
    """A sentence, and perhaps where to go; `link` is one of our own paths."""
    content = [tags.p(_sentence(text))]
    if link:
        content.append(tags.p(tags.a(label, href=link)))
    return content


def _form(action: str, hidden: Mapping[str, str], *content: Any) -> Tag:
    fields = [tags.input(type="hidden", name=name, value=value) for name, value in hidden.items()]
    return tags.form(*fields, *content, method="post", action=action, **{"accept-charset": "utf-8"})


def _field(
    label: str,
    name: str,
    values: Mapping[str, str],
    *,
    kind: str = "text",
    css: str = "",
    maxlength: str = "256",
    **attributes: str,
) -> list[Tag]:
    box = tags.input(
        type=kind,
        id=name,
        name=name,
        value=values.get(name, ""),
        required="required",
        maxlength=maxlength,
        **attributes,
    )
    if css:
        box(class_=css)
    return [tags.label(label, for_=name), box]


def _code_field(label: str, *, required: bool, digits: bool = False) -> list[Tag]:
    box = tags.input(
        type="text", id="code", name="code", maxlength="32", autocomplete="one-time-code"
    )
    box(class_="code", autocapitalize="none", spellcheck="false")
    if required:
        box(required="required", autofocus="autofocus")
    if digits:
        box(inputmode="numeric")
    return [tags.label(label, for_="code"), box]


def _error(text: str) -> object:
    return tags.p(_sentence(text), class_="error", role="alert") if text else ""


def _sentence(text: str) -> str:
    """As a page says it; the API's messages begin small and have no full stop."""
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _grouped(text: str) -> str:
    return " ".join(text[i : i + 4] for i in range(0, len(text), 4))
