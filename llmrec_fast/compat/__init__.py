"""Other libraries' interfaces over this package's: change the import, keep the code.

Each module stands in for one library and imports nothing of it: `faiss`, `sentence_transformers`, `sklearn`, `ranx`,
`implicit` and `langchain` (`sklearn` and `langchain` derive from the base classes of theirs). What a module does not cover it
does not have, so that code which needs it fails at once and by name.
"""
