"""The playground's Markdown in real browsers: what becomes an element, and that nothing else ever does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.browser.conftest import IN_CHROMIUM
from tests.browser.driver import Page

pytestmark = pytest.mark.asyncio(loop_scope="session")

SHOWN = """class Shown {
    constructor(place) { [this.place, this.text, this.markdown] = [place, '', new Markdown(place)]; }
    show(text) {
      if (!text.startsWith(this.text)) [this.text, this.markdown] = ['', new Markdown(this.place)];
      this.markdown.append(text.slice(this.text.length));
      this.text = text;
    }
  }"""
"""Shows a text, which begins with the one before or is another one."""
SHOW = f"""import('/playground/markdown.js').then(({{ Markdown }}) => {{
  {SHOWN}
  const place = document.createElement('div');
  document.body.append(place);
  const shown = new Shown(place);
  %s
}})"""
"""Runs statements with a new `Markdown` in `place`."""


async def markup(page: Page, text: str) -> str:
    """Returns the elements that a text becomes."""
    html = str(await page.evaluate(SHOW % f"shown.show({json.dumps(text)}); return place.innerHTML;"))
    return html.replace(' dir="auto"', "")


COPY = '<button type="button" class="quiet" data-copy="code">Copy</button>'
CODE = f'<div class="code" dir="ltr"><div><span>py</span>{COPY}</div>'
TABLE = '<div class="wide" tabindex="0" role="group" aria-label="Table"><table><thead><tr>'
LINK = 'rel="noopener noreferrer nofollow" target="_blank"'


WRITTEN = [
    ("one\ntwo\n\nthree", "<p>one\ntwo</p><p>three</p>"),
    ("# A *b*\ntext\n### c ###", "<h3>A <em>b</em></h3><p>text</p><h5>c</h5>"),
    ("#tag and # more", "<p>#tag and # more</p>"),
    (
        "**b** __b__ *i* _i_ ***bi*** ~~d~~ `c`",
        "<p><strong>b</strong> <strong>b</strong> <em>i</em> <em>i</em> <strong><em>bi</em></strong> "
        "<del>d</del> <code>c</code></p>",
    ),
    ("2 * 3 * 4, snake_case_name, 5*x*6", "<p>2 * 3 * 4, snake_case_name, 5<em>x</em>6</p>"),
    (r"\*no\* &lt;b&gt; &amp; &copy;", "<p>*no* &lt;b&gt; &amp; &amp;copy;</p>"),
    ("- a\n- b\n  - c\n- d", "<ul><li>a</li><li>b<ul><li>c</li></ul></li><li>d</li></ul>"),
    ("3. a\n4. b\n   1. c", '<ol start="3"><li>a</li><li>b<ol><li>c</li></ol></li></ol>'),
    ("- [ ] a\n- [x] b", "<ul><li>☐ a</li><li>☑ b</li></ul>"),
    ("> a\n> > b\n\nc", "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote><p>c</p>"),
    ("a\n***\nb", "<p>a</p><hr><p>b</p>"),
    ("```py\n<b>*x*\n```\nz", f'{CODE}<pre tabindex="0"><code>&lt;b&gt;*x*</code></pre></div><p>z</p>'),
    ("~~~py\n```\nunclosed", f'{CODE}<pre tabindex="0"><code>```\nunclosed</code></pre></div>'),
    (
        "| a | b |\n|:-:|--:|\n| `x|y` | \\| |",
        f'{TABLE}<th class="center">a</th><th class="end">b</th></tr></thead><tbody>'
        '<tr><td class="center"><code>x|y</code></td><td class="end">|</td></tr></tbody></table></div>',
    ),
    (
        "[a *b*](https://x.example/y_(z)) (https://x.example/q).",
        f'<p><a href="https://x.example/y_(z)" title="https://x.example/y_(z)" {LINK}>a <em>b</em></a> '
        f'(<a href="https://x.example/q" title="https://x.example/q" {LINK}>https://x.example/q</a>).</p>',
    ),
]
"""Texts as models write them, and the elements that they become."""


async def test_what_models_write_becomes_elements(page: Page) -> None:
    for text, expected in WRITTEN:
        assert await markup(page, text) == expected


HOSTILE = [
    "<script>window.hit = 1</script>",
    "<img src=x onerror='window.hit = 1'>",
    '<svg/onload="window.hit = 1">',
    "<iframe srcdoc='<script>parent.hit = 1</script>'></iframe>",
    "<a href='javascript:window.hit=1'>x</a>",
    "<style>*{display:none}</style><base href=//evil.example><meta http-equiv=refresh content=0>",
    "<form action=//evil.example><button>x</button></form><input autofocus onfocus='window.hit=1'>",
    "[x](javascript:window.hit=1)",
    "[x](JaVaScRiPt:window.hit=1)",
    "[x](java\nscript:window.hit=1)",
    "[x](\x01javascript:window.hit=1)",
    "[x](&#106;avascript:window.hit=1)",
    "[x](javascript&colon;window.hit=1)",
    "[x](data:text/html,<script>parent.hit=1</script>)",
    "[x](data:text/html;base64,PHNjcmlwdD4xPC9zY3JpcHQ+)",
    "[x](vbscript:x) [x](file:///etc/passwd) [x](blob:http://x/y) [x](//evil.example) [x](/admin/v1/reload) [x](#a)",
    "<javascript:window.hit=1> <https://x.example/\"onclick='window.hit=1'>",
    '[x](https://x.example/"onmouseover="window.hit=1)',
    '[x](https://x.example "title" onclick="window.hit=1")',
    '![x](https://x.example/a.png) ![x](x" onerror="window.hit=1) ![](javascript:window.hit=1)',
    "[a [b](https://x.example) c](javascript:window.hit=1)",
    '[<img src=x onerror="window.hit=1">](https://x.example)',
    "```<img src=x onerror=window.hit=1>\n</code></pre><script>window.hit=1</script>\n```",
    '``` "onclick="window.hit=1\nx\n```',
    "`<img src=x onerror=window.hit=1>`",
    "| <img src=x onerror=window.hit=1> | b |\n|---|---|\n| [x](javascript:window.hit=1) | <script>hit=1</script> |",
    "# <img src=x onerror=window.hit=1>\n> <svg onload=window.hit=1>\n- <iframe src=javascript:parent.hit=1>",
    "&lt;script&gt;window.hit=1&lt;/script&gt; &#x3c;img&#x3e;",
    "**<b onclick=window.hit=1>x**</b> *<![CDATA[<script>]]>* <!-- --> <?php ?>",
    "[x]: javascript:window.hit=1\n[x][x] [x]",
    "https://x.example/<script>window.hit=1</script> http://user:password@x.example/ https://[::1 ",
    "\u202e[gro.elgoog](https://x.example)\u0000",
]
AROUND = ["%", "> %", "- %", "# %", "**%**", "[%](https://x.example)", "\n\n%\n\n", "| a |\n|---|\n| % |"]
TAGS = (
    "P H3 H4 H5 H6 UL OL LI BLOCKQUOTE HR STRONG EM DEL CODE PRE A DIV SPAN BUTTON TABLE THEAD TBODY TR TH TD".split()
)
ATTRIBUTES = "aria-label class colspan data-copy dir href rel role start tabindex target title type".split()


async def test_nothing_of_the_model_is_markup(page: Page) -> None:
    """Each hostile text in every length and in each kind of block; only links to http and https go anywhere."""
    found = await page.evaluate(
        f"""(async () => {{
          window.hit = 0;
          const {{ Markdown }} = await import('/playground/markdown.js');
          {SHOWN}
          const place = document.createElement('div');
          document.body.append(place);
          const [tags, names, protocols] = [new Set(), new Set(), new Set()];
          for (const text of {json.dumps(HOSTILE)}) {{
            for (const around of {json.dumps(AROUND)}) {{
              const shown = new Shown(place);
              const whole = around.replace('%', () => text);
              for (let end = 1; end <= whole.length; end += 1) {{
                shown.show(whole.slice(0, end));
                for (const element of place.querySelectorAll('*')) {{
                  tags.add(element.tagName);
                  for (const {{ name }} of element.attributes) names.add(name);
                  if (element.tagName === 'A') protocols.add(element.protocol);
                }}
              }}
            }}
          }}
          await new Promise((resolve) => setTimeout(resolve, 50));
          return {{ tags: [...tags], names: [...names], protocols: [...protocols].sort(), hit: window.hit }};
        }})()"""
    )
    assert set(found["tags"]) <= set(TAGS)
    assert set(found["names"]) <= set(ATTRIBUTES)
    assert set(found["protocols"]) == {"http:", "https:"}
    assert found["hit"] == 0


WHOLE = (
    "# Title\n\nText with **strong *both* words**, `code`,\n#hash and a [link](https://x.example/a?b=c).\n\n"
    "1. one\n2. two\n   - deep\n\n     more\n3. three\n\n- [x] other\n\n```py\nif a:\n\n    b\n```\n> quote\n> - list\n"
    "\na | b\n--|--\n1 | 2\n\n***\n\nlast *paragraph\n- item\ntext\n#"
)


async def test_text_that_grows_becomes_what_it_is_at_once_and_keeps_its_elements(page: Page) -> None:
    """After every character: as if that much had come at once. Finished elements stay the same: nothing flickers."""
    found: dict[str, Any] = await page.evaluate(
        SHOW
        % f"""
        const whole = {json.dumps(WHOLE)};
        const once = document.createElement('div');
        const first = {{}};
        let moved = 0;
        let removed = 0;
        new MutationObserver((records) => {{
          for (const {{ removedNodes }} of records) {{
            for (const node of removedNodes) if (node === first.heading || node === first.pre) removed += 1;
          }}
        }}).observe(place, {{ subtree: true, childList: true }});
        for (let end = 0; end <= whole.length; end += 1) {{
          shown.show(whole.slice(0, end));
          new Shown(once).show(whole.slice(0, end));
          if (place.innerHTML !== once.innerHTML) return {{ end, grown: place.innerHTML, once: once.innerHTML }};
          first.heading ??= whole.slice(0, end).includes('Text') ? place.querySelector('h3') : null;
          first.pre ??= place.querySelector('pre');
          moved += first.heading && place.querySelector('h3') !== first.heading ? 1 : 0;
          moved += first.pre && place.querySelector('pre') !== first.pre ? 1 : 0;
        }}
        return new Promise((resolve) => setTimeout(() => resolve({{ moved, removed }})));"""
    )
    assert found == {"moved": 0, "removed": 0}


LONG = [
    "*" * 100_000,
    "**a " * 25_000,
    "[" * 100_000,
    "[a](" * 25_000,
    "`" * 100_000,
    "_a" * 50_000,
    "> " * 50_000,
    "- " * 50_000,
    "|" * 50_000 + "\n" + "|-" * 25_000,
    "# " + " " * 50_000 + "#" * 50_000 + "x",
    "https://x.example/" + ")," * 50_000,
    "a\n" * 50_000,
    "a | b\n-" + " " * 100_000 + "x|",
    "a | b\n" + " " * 60_000 + "-|" + " " * 40_000 + "x",
    "```" + " " * 100_000 + "`",
    "-" + " " * 50_000 + "x\n" + " x\n" * 25_000,
    "|" * 99 + "\n" + "|-" * 100 + "\n" + "|\n" * 4_000,
]


async def test_hostile_text_costs_time_in_proportion(page: Page) -> None:
    """100,000 characters by tens of times what the slowest takes, in one of three tries: searches have no counter.

    A search that begins again at each character takes 10 s and more.
    """
    for text in LONG:
        show = f"const begin = performance.now(); shown.show({json.dumps(text)}); return performance.now() - begin;"
        for _ in range(3):
            if await page.evaluate(SHOW % show) < 4000:
                break
        else:
            raise AssertionError(text[:10])


GROWING = {
    "one line": "word ",
    "carriage returns": "some text\\r\\n",
    "a lone carriage return": "\\rsome text ",
    "code": "    print(x)\\n",
    "a list": "- item *a*\\n",
    "a table": "| a | b |\\n",
    "a quote": "> said\\n",
    "paragraphs": "some text\\n\\n",
    "blanks": "     ",
    "blank lines": "\\n",
    "marks": "**",
    "marks of words": "*a ",
    "marks of another kind": "a _b ~~c ",
    "a list of marks": "- " + "*a" * 249 + "\\n",
    "paragraphs of marks": "*a" * 999 + "\\n\\n",
}
SEARCHED = 16 * 32 + 2 * 1000
"""Characters that are searched for each one that has come: what they pay for, and two readings of the whole."""
HEADS = {"code": "```\\n", "a table": "| a | b |\\n|---|---|\\n"}


@IN_CHROMIUM
@pytest.mark.parametrize("name", GROWING)
async def test_text_that_grows_by_small_pieces_is_read_in_proportion(page: Page, name: str) -> None:
    """The characters that are read for a text and for one of twice its length, which comes in pieces of 32."""
    head, unit = HEADS.get(name, ""), GROWING[name]
    found = await page.evaluate(
        f"""import('/playground/markdown.js').then(({{ Markdown }}) => {{
          const read = (size) => {{
            const whole = '{head}' + '{unit}'.repeat(size / '{unit}'.length);
            const [place, once] = [document.createElement('div'), document.createElement('div')];
            const shown = new Markdown(place);
            const before = Markdown.steps;
            const unsearched = Markdown.searched;
            for (let at = 0; at < whole.length; at += 32) shown.append(whole.slice(at, at + 32));
            const isWhole = place.textContent.replace(/\\s/g, '').length;
            shown.end();
            const steps = Markdown.steps - before;
            const searched = Markdown.searched - unsearched;
            new Markdown(once).append(whole);
            const isSame = place.innerHTML === once.innerHTML;
            return {{ steps, searched, isSame, isWhole: isWhole > 0 || !whole.trim() }};
          }};
          return [read(20000), read(40000)];
        }})"""
    )
    small, large = found
    assert large["steps"] / small["steps"] <= 2.3
    assert max(small["searched"] / 20000, large["searched"] / 40000) <= SEARCHED, "ends of marks are looked for"
    assert small["isSame"]
    assert large["isSame"]
    assert large["isWhole"], "what is not read yet stands there as it came"
