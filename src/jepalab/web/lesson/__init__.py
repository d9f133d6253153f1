"""The lesson: its content as data, the figures and verdicts that fill it, and the page that is made of them.

    content.toml    what is written by hand; `content` reads and checks it.
    figures.json    our measured numbers, made by `figures` from docs/results; an installed package has them too.
    verdicts.json   what the audit says of each step of the first exercise, made by `verdicts`.

`python -m jepalab.web.lesson_page PAGE.html` makes both files and the page. Reading them needs neither torch nor numpy.
"""
