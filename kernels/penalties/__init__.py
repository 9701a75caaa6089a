"""The diversity penalty, and leading singular values by a block power iteration."""
