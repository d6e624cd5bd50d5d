"""The style sheet of the five pages: phone and desktop, light and dark, nothing from elsewhere."""

CSS = b"""\
:root { color-scheme: light dark; --ink: #1a1d21; --soft: #5b6570; --page: #f3f5f7;
  --card: #fff; --line: #d5dbe1; --accent: #0b5cad; --on: #fff; --bad: #a8231c; --tint: #eef4fb }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8ebee; --soft: #a4adb7; --page: #14171a; --card: #1d2126; --line: #3a424b;
    --accent: #7fb8f2; --on: #0d1116; --bad: #ff9d94; --tint: #232c36 } }
* { box-sizing: border-box }
body { margin: 0; min-height: 100vh; display: flex; flex-direction: column; align-items: center;
  padding: 6vh 1rem 2rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
main { width: 100%; max-width: 27rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 12px; padding: clamp(1.1rem, 5vw, 1.75rem); overflow-wrap: anywhere }
.brand { margin: 0 0 1rem; font-weight: 650; letter-spacing: .02em; color: var(--soft) }
h1 { margin: 0 0 .5rem; font-size: 1.4rem; line-height: 1.25 }
h2 { margin: 1.5rem 0 .25rem; font-size: 1.05rem }
p { margin: .5rem 0 }
label { display: block; margin: 1rem 0 .25rem; font-weight: 600 }
.hint { color: var(--soft); font-size: .9rem; margin: .25rem 0 }
input[type=text], input[type=password], input[type=email] { width: 100%; padding: .65rem .75rem;
  font: inherit; color: inherit; background: var(--page); border: 1px solid var(--soft);
  border-radius: 8px }
input.code { font: 1.35rem/1.3 ui-monospace, "SF Mono", Menlo, Consolas, monospace;
  letter-spacing: .12em; text-transform: uppercase }
input:focus-visible, button:focus-visible, a:focus-visible { outline: 3px solid var(--accent);
  outline-offset: 2px }
button { width: 100%; margin-top: 1.25rem; padding: .75rem 1rem; font: inherit; font-weight: 650;
  color: var(--on); background: var(--accent); border: 1px solid var(--accent);
  border-radius: 8px; cursor: pointer }
button.plain { color: var(--ink); background: transparent; border-color: var(--line);
  margin-top: .75rem }
.error { margin: 1rem 0 0; padding: .65rem .75rem; border-left: 4px solid var(--bad);
  background: var(--tint); color: var(--bad); border-radius: 4px }
.note { margin: 1rem 0; padding: .65rem .75rem; background: var(--tint); border-radius: 8px }
.big { margin: 1rem 0; text-align: center; letter-spacing: .14em; font-weight: 700;
  font-size: 1.9rem; font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace }
code, .mono { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; font-size: .95em }
dl { margin: 1rem 0; display: grid; grid-template-columns: auto 1fr; gap: .4rem 1rem }
dt { color: var(--soft) }
dd { margin: 0 }
.key { margin: .75rem 0; padding: .65rem .75rem; background: var(--tint); border-radius: 8px }
ul.codes { list-style: none; margin: .75rem 0; padding: .65rem .75rem; display: grid; gap: .3rem;
  grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); background: var(--tint);
  border-radius: 8px }
a { color: var(--accent) }
"""
