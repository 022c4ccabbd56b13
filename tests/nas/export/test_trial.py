import numpy as np
import pytest

from nas.export.trial import Trial
from search_spaces.precision import QuantizationPlan


def test_trial_finds_what_the_comparison_of_the_written_file_finds(delivered, task):
    assert Trial(task)(delivered.candidate) == delivered.exported.parity


def test_trial_follows_plan_and_module(mobile, untrained, task):
    trial = Trial(task, images=32)
    first = trial(mobile.candidate)
    kept = QuantizationPlan(keep_float=tuple(op.scope for op in mobile.candidate.workload().flat().ops))
    assert trial(mobile.candidate.replace(quantization=kept)).relative_rms < 0.1 * first.relative_rms
    other = trial(untrained.replace(quantization=QuantizationPlan()))
    assert other.max_abs_logit != first.max_abs_logit
    assert trial(mobile.candidate) == first
    assert first.images == 32


def test_trial_of_a_float_candidate_is_refused(untrained, task):
    with pytest.raises(ValueError, match="without a quantization plan"):
        Trial(task)(untrained)


def test_trial_reads_no_more_images_than_asked(mobile, task):
    few = task.replace(validation=type(task.validation)("few", task.validation.images[:5], np.zeros(5, np.int64)))
    assert Trial(few, images=300)(mobile.candidate).images == 5
