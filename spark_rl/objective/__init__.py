"""What training maximises: rewards and their penalties, the clipped policy loss, settings of learning by preference.

Pure functions of numbers and tensors. Advantages of steps are in `advantage`, optimiser steps in `learning`.
"""
