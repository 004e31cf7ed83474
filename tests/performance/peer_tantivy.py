"""Indexes the texts of a file with Tantivy, searches them, and prints the seconds as JSON: run by the peers' Python.

The file is JSON, `{"texts": […], "queries": […]}`.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import tantivy

_HITS = 20


def main(source: str) -> None:
    data = json.loads(Path(source).read_bytes())
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("text", stored=True, tokenizer_name="en_stem")
    with tempfile.TemporaryDirectory(prefix="videomoments-tantivy-") as folder:
        index = tantivy.Index(builder.build(), folder)
        began = time.perf_counter()
        writer = index.writer()
        for text in data["texts"]:
            writer.add_document(tantivy.Document(text=text))
        writer.commit()
        index.reload()
        seconds = time.perf_counter() - began
        measured = {"seconds": seconds, "p50": median(_search(index, query) for query in data["queries"])}
        sys.stdout.write(json.dumps(measured))


def _search(index: tantivy.Index, query: str) -> float:
    began = time.perf_counter()
    searcher = index.searcher()
    for _, address in searcher.search(index.parse_query(query, ["text"]), _HITS).hits:
        searcher.doc(address)
    return time.perf_counter() - began


if __name__ == "__main__":
    main(sys.argv[1])
