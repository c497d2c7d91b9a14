"""Every exercise check by one import. Each prints a verdict and never raises."""

from tutorial_utils.lessons.activations.checks import (
    check_last_real,
    check_output_of,
    check_strongest,
)
from tutorial_utils.lessons.contrast.checks import check_contrast_batch, check_picks, check_strength
from tutorial_utils.lessons.decoding.checks import (
    check_continue_until,
    check_penalise,
    check_tokens_kept,
)
from tutorial_utils.lessons.features.checks import (
    check_keep_top,
    check_precision_and_recall,
    check_without_feature,
)
from tutorial_utils.lessons.harvest.checks import (
    check_batches_of,
    check_bytes_on_disk,
    check_positions_of,
)
from tutorial_utils.lessons.heads.checks import (
    check_break_it,
    check_direct,
    check_find_induction,
)
from tutorial_utils.lessons.layer.checks import check_attend, check_previous_score, check_rotate
from tutorial_utils.lessons.lens.checks import check_layer_norm_lens, check_rank, check_settled
from tutorial_utils.lessons.patching.checks import check_carriers, check_put_at, check_without
from tutorial_utils.lessons.softmax.checks import (
    check_ending_bits,
    check_entropies,
    check_log_softmax,
)
from tutorial_utils.lessons.start.checks import check_my_prompt, check_weights_gib
from tutorial_utils.lessons.tokens.checks import (
    check_answer_id,
    check_decode_symbols,
    check_next_pair,
)

__all__ = [
    "check_answer_id",
    "check_attend",
    "check_batches_of",
    "check_break_it",
    "check_bytes_on_disk",
    "check_carriers",
    "check_continue_until",
    "check_contrast_batch",
    "check_decode_symbols",
    "check_direct",
    "check_ending_bits",
    "check_entropies",
    "check_find_induction",
    "check_keep_top",
    "check_last_real",
    "check_layer_norm_lens",
    "check_log_softmax",
    "check_my_prompt",
    "check_next_pair",
    "check_output_of",
    "check_penalise",
    "check_picks",
    "check_positions_of",
    "check_precision_and_recall",
    "check_previous_score",
    "check_put_at",
    "check_rank",
    "check_rotate",
    "check_settled",
    "check_strength",
    "check_strongest",
    "check_tokens_kept",
    "check_weights_gib",
    "check_without",
    "check_without_feature",
]
