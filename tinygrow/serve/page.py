"""The page: where its files are, and the headers under which browsers may run it."""

from pathlib import Path

FOLDER = Path(__file__).with_name("built_page")  # `make web` writes it
REMEDY = (
    "the page is not built: run `make web` (it needs Node.js) and start the server again;"
    " POST /predict works without it\n"
)
CONTENT_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}

# WebAssembly's threads share memory, which browsers allow to pages that are isolated from other
# origins (COOP, COEP). Nothing is loaded from elsewhere; nobody may frame the page.
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self';"
        " connect-src 'self'; style-src 'self'; img-src 'self' blob:; base-uri 'none';"
        " form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Server": "tinygrow",
}


def page_files(folder: Path = FOLDER) -> dict[str, Path]:
    """Return the files of the built page by name; none if it is not built."""
    if not (folder / "index.html").is_file():
        return {}
    return {file.name: file for file in folder.iterdir() if file.suffix in CONTENT_TYPES}
