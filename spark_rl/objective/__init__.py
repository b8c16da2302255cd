"""The objective of training: rewards and their penalties, the clipped policy loss, settings of preference learning.

All functions here are pure functions of numbers and tensors. Advantages are in `advantage`, optimiser steps in `learning`.
"""
