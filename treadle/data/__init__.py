"""Data sets, samplers, and the loader that makes batches of them.

>>> import treadle
>>> loader = DataLoader([{"x": float(i), "y": i} for i in range(4)], batch_size=2)
>>> for batch in loader:
...     print(batch["y"])
tensor([0, 1])
tensor([2, 3])
"""

from treadle.data.collate import default_collate, default_convert
from treadle.data.dataset import (
    ChainDataset,
    ConcatDataset,
    Dataset,
    IterableDataset,
    StackDataset,
    Subset,
    TensorDataset,
    random_split,
)
from treadle.data.loader import DataLoader
from treadle.data.sampler import (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from treadle.data.worker import WorkerInfo, get_worker_info

__all__ = [
    "BatchSampler", "ChainDataset", "ConcatDataset", "DataLoader", "Dataset", "DistributedSampler",
    "IterableDataset", "RandomSampler", "Sampler", "SequentialSampler", "StackDataset", "Subset",
    "SubsetRandomSampler", "TensorDataset", "WeightedRandomSampler", "WorkerInfo",
    "default_collate", "default_convert", "get_worker_info", "random_split",
]  # fmt: skip
