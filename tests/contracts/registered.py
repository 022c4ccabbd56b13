"""Nothing escapes: whatever is registered needs an example for the contracts to run over."""

import pytest


def example(examples, name, kind, where):
    """Return the example of a registered plug-in; fails where nobody wrote one.

    Args:
        examples: By registered name.
        name: The name.
        kind: The field's word for it.
        where: File that holds the examples.
    """
    if name not in examples:
        pytest.fail(f"the {kind} {name!r} is registered without an example: add one to EXAMPLES in {where}")
    return examples[name]
