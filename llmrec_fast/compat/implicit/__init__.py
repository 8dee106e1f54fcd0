"""implicit's questions to a matrix-factorisation model: `from llmrec_fast.compat.implicit import MatrixFactorization`.

Covered: `recommend`, `similar_items`, `similar_users`, `recalculate_user` over given factors, filters included. Not there:
training (implicit does that; pass its `user_factors` and `item_factors` to `from_factors`), partial fits, explanations, GPU.
"""

from llmrec_fast.compat.implicit.model import MatrixFactorization, OutOfModel

__all__ = ["MatrixFactorization", "OutOfModel"]
