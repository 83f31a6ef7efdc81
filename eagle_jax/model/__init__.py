"""The whole model: mixture of experts, fusion, projector, splice and language model."""
