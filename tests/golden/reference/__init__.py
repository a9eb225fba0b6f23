"""The families' reference: tiny random checkpoints and what HF transformers makes of them. See make.py."""
