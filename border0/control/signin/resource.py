"""The five pages on twisted.web: what each address shows and what each form does.

A page that changes something is a POST with the form's token, from our own origin. Errors are
pages too, without a word about their cause inside.
"""

from collections.abc import Awaitable, Callable, Iterable

from twisted.internet.defer import ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from border0.control.api import errors
from border0.control.api.errors import ApiError
from border0.control.api.guard import Guard
from border0.control.api.principals import SELF, Principal, permits
from border0.control.api.web import new_request_id, protect, send
from border0.control.signin import pages
from border0.control.signin.flows import SignIn, random
from border0.control.signin.forms import (
    HOME,
    Visit,
    check_same_origin,
    read_form,
    read_query,
    safe_next,
)
from border0.control.signin.grants import Grants, shown, typed
from border0.control.signin.links import SetupLinks, link_digest
from border0.control.signin.model import Account, Factors, SetupLink
from border0.control.signin.passwords import objection
from border0.control.signin.sessions import browser_digest
from border0.control.signin.style import CSS
from border0.control.signin.totp import link as otpauth_link
from border0.control.signin.totp import (
    matching_step,
    recovery_codes,
    recovery_digest,
    secret_from,
)
from border0.control.store.errors import Unavailable
from border0.secrets import Secret

Page = tuple[int, bytes]
STYLE_PATH = "/signin.css"
PATHS = (
    "/setup",
    "/sign-in",
    "/sign-in/second-factor",
    "/sign-out",
    "/device",
    "/device/confirm",
    "/done",
)
# What a user needs who lets a machine do this.
NEEDS = {"login": SELF, "device": "device.own", "connector": "connector.write"}
_GONE = (
    "This link was used already, or is too old. If it was you, sign in. Ask an administrator "
    "for a new one; the first administrator's is made on the server: by border0 quickstart "
    "--new-link, or in the file setup-link when border0-control gets SIGHUP."
)
_TAKEN = "Somebody signs in by this name already."
_NO_CODE = (
    "There is no such code, it is too old, or another browser has it. Look at it again, or start "
    "again on the machine."
)


class SignInPages(Resource):
    """All pages; mount it where the paths of `PATHS` and `STYLE_PATH` reach it.

    :param clock: seconds since 1970.
    :param after: further paths of ours that may follow a sign-in (`next`).
    :param command: with what people sign in the command line, for the page after signing in.
    """

    isLeaf = True
    log = Logger()

    def __init__(
        self,
        sign_in: SignIn,
        links: SetupLinks,
        grants: Grants,
        *,
        guard: Guard,
        clock: Callable[[], float],
        after: Iterable[str] = (),
        command: str = "",
    ) -> None:
        super().__init__()
        self._command = command
        self.guard, self.clock = guard, clock
        self._sign_in, self._links, self._grants = sign_in, links, grants
        self._after = frozenset((HOME, "/device", "/device/confirm", *after))
        self._routes: dict[tuple[str, str], Callable[[Visit], Awaitable[Page]]] = {
            ("GET", "/"): self._get_start,
            ("GET", "/setup"): self._get_setup,
            ("POST", "/setup"): self._post_setup,
            ("GET", "/sign-in"): self._get_sign_in,
            ("POST", "/sign-in"): self._post_sign_in,
            ("GET", "/sign-in/second-factor"): self._get_second_factor,
            ("POST", "/sign-in/second-factor"): self._post_second_factor,
            ("POST", "/sign-out"): self._post_sign_out,
            ("GET", "/device"): self._get_device,
            ("POST", "/device"): self._post_device,
            ("GET", "/device/confirm"): self._get_confirm,
            ("POST", "/device/confirm"): self._post_confirm,
            ("GET", "/done"): self._get_done,
        }

    def render(self, request: Request) -> int:
        """Serve one page."""
        request_id = new_request_id()
        protect(request, self.guard, request_id)
        request.setHeader("Content-Security-Policy", pages.POLICY)
        # With `no-referrer` a browser would send `Origin: null` with our own forms; this value
        # tells other sites as little.
        request.setHeader("Referrer-Policy", "same-origin")
        done = ensureDeferred(self._serve(request, request_id))
        done.addErrback(self._failed, request, request_id)
        return NOT_DONE_YET

    def _failed(self, failure: Failure, request: Request, request_id: str) -> None:
        """Not even the page about a failure could be made."""
        self.log.failure(
            "request {request_id} could not be answered", failure, request_id=request_id
        )
        if not request.startedWriting:
            send(request, 500, b"Something went wrong on the server.", "text/plain; charset=utf-8")

    async def _serve(self, request: Request, request_id: str) -> None:
        headers: list[tuple[str, str]] = []
        try:
            path = request.path.decode("ascii", "replace")
            method = request.method.decode("ascii", "replace")
            if path == STYLE_PATH and method == "GET":
                check_same_origin(request, self.guard, change=False)
                request.setHeader("Cache-Control", "max-age=3600")
                send(request, 200, CSS, "text/css; charset=utf-8")
                return
            status, body, headers = await self._page(request, method, path, request_id)
        except ApiError as error:
            status, body = error.status, await self._error_page(error.status, error.message)
            headers = list(error.headers)
        except Unavailable as unavailable:
            self.log.error(
                "request {request_id} failed: {error}",
                request_id=request_id,
                error=str(unavailable),
            )
            text = "The server is too busy, or its database does not answer. Try again in a while."
            status, body, headers = 503, await self._error_page(503, text), []
        except Exception:
            self.log.failure("request {request_id} failed", request_id=request_id)
            text = f"Something went wrong on the server. Its log has it under {request_id}."
            status, body, headers = 500, await self._error_page(500, text), []
        send(request, status, body, "text/html; charset=utf-8", headers)

    async def _page(
        self, request: Request, method: str, path: str, request_id: str
    ) -> tuple[int, bytes, list[tuple[str, str]]]:
        check_same_origin(request, self.guard, change=method != "GET")
        handler = self._routes.get((method, path))
        if handler is None:
            raise errors.not_found("There is no such page.")
        visit = Visit(request, self.guard, self._sign_in.sessions, self.clock())
        visit.request_id = request_id
        await self._sign_in.load(visit)
        if method == "POST":
            visit.fields = read_form(request)
            visit.check_form()
        else:
            visit.fields = read_query(request)
        status, body = await handler(visit)
        return status, body, visit.headers

    @staticmethod
    async def _error_page(status: int, text: str) -> bytes:
        title = {404: "Not found", 429: "Slow down", 500: "Sorry"}.get(status, "This did not work")
        again = ("/", "To the start") if status in (403, 404) else ()
        return await pages.html(title, *pages.message(text, *again))

    @staticmethod
    def _go(visit: Visit, path: str) -> Page:
        visit.headers.append(("Location", path))
        return 303, b""

    async def _get_start(self, visit: Visit) -> Page:
        return self._go(visit, HOME)

    # set-up

    async def _get_setup(self, visit: Visit) -> Page:
        return await self._show_setup(visit, {}, "")

    async def _show_setup(self, visit: Visit, values: dict[str, str], error: str) -> Page:
        self._sign_in.throttle(visit)
        value = visit.fields.get("link", "")
        link = await self._links.find(value, visit.now)
        account = await self._invited(link)
        if link is None or (link.account and account is None):
            return await self._link_gone()
        if account is not None:
            values = {"name": account.name, **values}
        totp = self._new_totp(visit, value)
        login = account.login if account is not None else values.get("login", "")
        otpauth = otpauth_link(totp, login or "administrator", "border0")
        form = pages.setup(visit.hidden(link=value), values, account, totp, otpauth, error)
        return 422 if error else 200, await pages.html("Set up", form)

    async def _invited(self, link: SetupLink | None) -> Account | None:
        """The user whom a link is for; None for the first administrator, or who is gone."""
        if link is None or not link.account:
            return None
        account = await self._sign_in.accounts.get(link.account)
        if account is None or account.disabled or account.org != link.org:
            return None
        return account

    @staticmethod
    async def _link_gone() -> Page:
        return 410, await pages.html("Link used up", *pages.message(_GONE, "/sign-in", "Sign in"))

    async def _post_setup(self, visit: Visit) -> Page:
        fields = visit.fields
        value, code = fields.get("link", ""), fields.get("code", "").strip()
        login, name = fields.get("login", "").strip().lower(), fields.get("name", "").strip()
        password = Secret(fields.get("password", ""))
        totp, step = self._new_totp(visit, value), 0
        invited = await self._invited(await self._links.find(value, visit.now))
        if invited is not None:
            login = invited.login  # theirs already; the form does not change it
        error = ""
        if not _fits(name) or (invited is None and not _fits(login)):
            error = "Name and login are needed, in at most 128 characters."
        elif password != Secret(fields.get("again", "")):
            error = "The two passwords are not the same."
        else:
            error = objection(password.reveal(), login)
        if not error and code:
            step = matching_step(totp, code, visit.now, 0) or 0
            error = "" if step else "The code of the app is wrong; is the machine's clock right?"
        if error:
            return await self._show_setup(visit, {"login": login, "name": name}, error)
        self._sign_in.throttle(visit)
        link = await self._links.find(value, visit.now)
        if link is None or (link.account and invited is None):
            return await self._link_gone()
        other = await self._sign_in.accounts.find_login(login)
        if other is not None and (invited is None or other.id != invited.id):
            return await self._show_setup(visit, {"login": login, "name": name}, _TAKEN)
        codes = recovery_codes(random) if step else []
        factors = Factors(
            await self._sign_in.passwords.hash(password),
            totp if step else None,
            step,
            tuple(recovery_digest(one.reveal()) for one in codes),
        )
        account = await self._sign_in.accounts.create_owner(
            link_digest(value), visit.now, login, name, factors
        )
        if account is None:
            return await self._link_gone()
        await self._sign_in.record(visit, account, "user.set_up", "ok")
        await self._sign_in.open(visit, account, mfa=bool(step), full=True)
        words = "The server is set up." if invited is None else "Your password is set."
        content = pages.done(visit.hidden(), account, words, codes, self._command)
        return 200, await pages.html("Done", *content)

    def _new_totp(self, visit: Visit, link: str) -> Secret:
        """The same key each time the page is shown to this browser, and nothing to store."""
        derived = self._sign_in.sessions.derive("totp", link_digest(link), visit.browser)
        return secret_from(derived)

    # sign-in

    async def _get_sign_in(self, visit: Visit) -> Page:
        following = safe_next(visit.fields.get("next", ""), self._after)
        if visit.session is not None and visit.session.stage == "full":
            return self._go(visit, following)
        return await self._show_sign_in(visit, following, {}, "")

    async def _show_sign_in(
        self, visit: Visit, following: str, values: dict[str, str], error: str
    ) -> Page:
        reason = "To confirm the machine, say who you are." if "/device" in following else ""
        form = pages.sign_in(visit.hidden(next=following), values, error, reason)
        return 403 if error else 200, await pages.html("Sign in", form)

    async def _post_sign_in(self, visit: Visit) -> Page:
        following = safe_next(visit.fields.get("next", ""), self._after)
        login = visit.fields.get("login", "")[:256]
        password = Secret(visit.fields.get("password", ""))
        error = await self._sign_in.password(visit, login, password)
        if error:
            return await self._show_sign_in(visit, following, {"login": login}, error)
        if visit.session is not None and visit.session.stage == "full":
            return self._go(visit, following)
        return await self._show_second_factor(visit, following, "")

    async def _get_second_factor(self, visit: Visit) -> Page:
        following = safe_next(visit.fields.get("next", ""), self._after)
        if visit.session is None or visit.session.stage == "full":
            return self._go(visit, "/sign-in")
        return await self._show_second_factor(visit, following, "")

    async def _show_second_factor(self, visit: Visit, following: str, error: str) -> Page:
        form = pages.second_factor(visit.hidden(next=following), error)
        return 403 if error else 200, await pages.html("Second factor", form)

    async def _post_second_factor(self, visit: Visit) -> Page:
        following = safe_next(visit.fields.get("next", ""), self._after)
        account = visit.account
        if account is None or visit.session is None or visit.session.stage != "password":
            return self._go(visit, "/sign-in")
        error = await self._sign_in.second_factor(visit, account, visit.fields.get("code", ""))
        if error:
            return await self._show_second_factor(visit, following, error)
        return self._go(visit, following)

    async def _post_sign_out(self, visit: Visit) -> Page:
        await self._sign_in.close(visit)
        return self._go(visit, "/sign-in")

    # devices

    async def _get_device(self, visit: Visit) -> Page:
        code = typed(visit.fields.get("code", ""))
        form = pages.enter_code(visit.hidden(), shown(code) if code else "", "")
        return 200, await pages.html("Confirm a machine", form)

    async def _post_device(self, visit: Visit) -> Page:
        self._sign_in.throttle(visit)
        text = visit.fields.get("code", "")
        grant = await self._grants.claim(text, browser_digest(visit.browser), visit.now)
        if grant is None:
            form = pages.enter_code(visit.hidden(), "", _NO_CODE)
            return 404, await pages.html("Confirm a machine", form)
        return self._go(visit, f"/device/confirm?code={shown(grant.user_code)}")

    async def _get_confirm(self, visit: Visit) -> Page:
        code = typed(visit.fields.get("code", ""))
        if visit.account is None or visit.session is None or visit.session.stage != "full":
            suffix = f"?code={shown(code)}" if code else ""
            following = f"/device/confirm{suffix}".replace("?", "%3F").replace("=", "%3D")
            return self._go(visit, f"/sign-in?next={following}")
        grant = await self._grants.claimed(code, browser_digest(visit.browser), visit.now)
        if grant is None:
            return await self._no_code()
        form = pages.confirm(visit.hidden(code=code), grant, visit.account, "")
        return 200, await pages.html("Allow this machine?", form)

    async def _post_confirm(self, visit: Visit) -> Page:
        if visit.account is None or visit.session is None or visit.session.stage != "full":
            return self._go(visit, "/sign-in")
        answer = visit.fields.get("answer", "")
        if answer not in ("allow", "refuse"):
            raise errors.bad_request("The answer is to allow or to refuse.")
        grant = await self._grants.claimed(
            visit.fields.get("code", ""), browser_digest(visit.browser), visit.now
        )
        if grant is None:
            return await self._no_code()
        account, allowed = visit.account, answer == "allow"
        needed = NEEDS[grant.purpose]
        if allowed and not permits(
            Principal(account.org, account.id, "", account.role, ""), needed
        ):
            raise errors.forbidden(f"To allow this, you need the permission {needed}.")
        target = {"name": grant.name, "public_key": grant.public_key, "purpose": grant.purpose}
        result, reason = ("ok", "") if allowed else ("denied", "refused by the user")
        await self._sign_in.record(visit, account, "device.confirm", result, reason, target)
        browser = browser_digest(visit.browser)
        decided = await self._grants.decide(grant.user_code, browser, account, allowed, visit.now)
        if decided is None:
            return await self._no_code()
        return self._go(visit, f"{HOME}?machine={'allowed' if allowed else 'refused'}")

    async def _no_code(self) -> Page:
        content = pages.message(_NO_CODE, "/device", "Type a code")
        return 404, await pages.html("Unknown code", *content)

    async def _get_done(self, visit: Visit) -> Page:
        if visit.account is None or visit.session is None or visit.session.stage != "full":
            return self._go(visit, "/sign-in")
        text = {
            "allowed": "The machine may go on. You can close this page.",
            "refused": "The machine was refused. You can close this page.",
        }.get(visit.fields.get("machine", ""), "")
        title, command = ("Done", "") if text else ("Signed in", self._command)
        content = pages.done(visit.hidden(), visit.account, text, command=command)
        return 200, await pages.html(title, *content)


def _fits(text: str) -> bool:
    return 0 < len(text) <= 128 and text.isprintable()
