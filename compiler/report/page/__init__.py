"""The report as one HTML file: what it shows (`data.py`), and how it becomes one file (`html.py`).

The page itself is `page.html`, `page.css` and the scripts `*.js`, which are shipped as they are.
"""
