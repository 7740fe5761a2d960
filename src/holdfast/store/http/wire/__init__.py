"""What goes over the wire between `holdfast serve` and the store of `holdfast.connect("http://…")`.

Both sides use these types, and the OpenAPI document is made from them. Events and drafts are arrays, for they
come by the thousand; their bodies are JSON *text*, not JSON, so that each byte arrives as it was written: the
hash of a log is over those bytes (law L13), and not every JSON text that Python writes is one that others read
(lone surrogates).

encoding   JSON, checked against a type
events     events and drafts;  problems: errors
writing    appends and writes to streams;  reading: what a store holds;  working: who works on what
"""
