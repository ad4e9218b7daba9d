"""The rows of some customers, drawn by their names, so that all rows of a customer stay together."""

import numpy as np
import pandas as pd
import pyarrow as pa

HASHES = 2**64
LEAST_SHARE = 2**-16


class SomeCustomers:
    """Holds the rows of every customer while they are at most `limit` rows, and else of a share of them.

    Whether a customer is among them depends on a hash of the name alone. Rows without a customer are left out.
    Source: Gibbons, 2001, "Distinct sampling for highly-accurate answers to distinct values queries".
    """

    def __init__(self, schema: pa.Schema, column: str, limit: int) -> None:
        self.share = 1.0
        self._schema = schema
        self._column = column
        self._limit = limit
        self._kept: list[tuple[pa.Table, np.ndarray[tuple[int], np.dtype[np.uint64]]]] = []
        self._rows = 0

    def add(self, table: pa.Table) -> None:
        """Hold the rows of the customers that are among them."""
        named = table.filter(table[self._column].is_valid())
        hashes = pd.util.hash_array(named[self._column].to_numpy().astype(object))
        self._keep(named, hashes)
        # One customer may have more rows than the limit: then memory is not what matters.
        while self._rows > self._limit and self.share > LEAST_SHARE:
            self.share /= 2
            kept, self._kept, self._rows = self._kept, [], 0
            for rows, their_hashes in kept:
                self._keep(rows, their_hashes)

    def table(self) -> pa.Table:
        """The rows that are held, in their order."""
        return pa.concat_tables([self._schema.empty_table(), *(rows for rows, _ in self._kept)])

    def _keep(self, table: pa.Table, hashes: "np.ndarray[tuple[int], np.dtype[np.uint64]]") -> None:
        if self.share < 1:
            is_among = hashes < np.uint64(self.share * HASHES)
            table, hashes = table.filter(pa.array(is_among)), hashes[is_among]
        if len(table):
            self._kept.append((table, hashes))
            self._rows += len(table)
