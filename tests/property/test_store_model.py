"""A store in memory against its model."""

from helpers.store_model import StoreAgainstModel
from hypothesis import settings

StoreAgainstModel.TestCase.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)
TestStoreAgainstModel = StoreAgainstModel.TestCase
