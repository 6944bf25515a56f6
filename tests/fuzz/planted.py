"""Workers that end badly, to show that the fuzzer notices. They import nothing slow."""

import os
import signal
import time


def crash_at_two(seed, numbers, pipe):
    for number in numbers:
        if number == 2:
            os.kill(os.getpid(), signal.SIGSEGV)
        pipe.send(number)


def hang_at_two(seed, numbers, pipe):
    for number in numbers:
        if number == 2:
            time.sleep(1000)
        pipe.send(number)
