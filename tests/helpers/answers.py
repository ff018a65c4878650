"""Answers in columns, made of series that a test spells out."""

import numpy as np

from ccms_server.model import (
    END,
    FIRST,
    HEAD_COLUMNS,
    INTERVAL,
    IS_ERROR,
    N_VALUES,
    PADDING,
    QUERY,
    SERIES,
    START,
    STATISTICS_COLUMNS,
    SeriesAnswers,
)


def in_columns(answers, paddings=None):
    """The same series column by column, with missing values in front of each if `paddings` says how many."""
    heads, statistics = np.zeros((len(answers), HEAD_COLUMNS), np.int64), np.zeros((len(answers), STATISTICS_COLUMNS))
    values = [np.empty(0) if answer.values is None else answer.values for answer in answers]
    first = 0
    for head, row, some, answer in zip(heads, statistics, values, answers, strict=True):
        head[[QUERY, SERIES, START, END]] = answer.query_index, answer.series_index, answer.start, answer.end
        head[[INTERVAL, FIRST, N_VALUES, IS_ERROR]] = answer.interval, first, len(some), answer.error is not None
        first += len(some)
        if answer.statistics is not None:
            found = answer.statistics
            row[:] = found.min, found.avg, found.max, found.count
    if paddings is not None:
        heads[:, PADDING] = paddings
    return SeriesAnswers(
        labels=[(answer.metric, answer.host, answer.component, answer.subcomponent) for answer in answers],
        heads=heads,
        values=np.concatenate([np.empty(0), *values]),
        statistics=statistics,
        errors={number: answer.error for number, answer in enumerate(answers) if answer.error is not None},
        has_values=any(answer.values is not None for answer in answers),
        has_statistics=any(answer.statistics is not None for answer in answers),
    )
