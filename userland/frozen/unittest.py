"""The part of unittest that MicroPython's own tests use, with the summary that tests/run-tests.py reads.

Promise: every test_* method of every TestCase in __main__ runs, with setUp and tearDown; failures are printed
and counted, none stops the run. Called by: tests, through unittest.main(). Frozen into the program.
"""
import sys


class SkipTest(Exception):
    pass


class _Raises:
    def __init__(self, expected):
        self.expected = expected

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.exception = value
        if kind is None:
            raise AssertionError(f"{self.expected!r} not raised")
        return issubclass(kind, self.expected)


class _SubTest:
    def __enter__(self):
        pass

    def __exit__(self, kind, value, trace):
        pass


class TestCase:
    def setUp(self):
        pass

    def tearDown(self):
        pass

    @classmethod
    def setUpClass(cls):
        pass

    @classmethod
    def tearDownClass(cls):
        pass

    def fail(self, msg=None):
        raise AssertionError(msg)

    def skipTest(self, reason):
        raise SkipTest(reason)

    def subTest(self, *args, **kwargs):
        return _SubTest()

    def _check(self, holds, msg, text):
        if not holds:
            self.fail(msg or text)

    def assertEqual(self, a, b, msg=None):
        self._check(a == b, msg, f"{a!r} vs (expected) {b!r}")

    def assertNotEqual(self, a, b, msg=None):
        self._check(a != b, msg, f"{a!r} not expected to equal {b!r}")

    def assertLess(self, a, b, msg=None):
        self._check(a < b, msg, f"{a!r} expected to be < {b!r}")

    def assertLessEqual(self, a, b, msg=None):
        self._check(a <= b, msg, f"{a!r} expected to be <= {b!r}")

    def assertGreater(self, a, b, msg=None):
        self._check(a > b, msg, f"{a!r} expected to be > {b!r}")

    def assertGreaterEqual(self, a, b, msg=None):
        self._check(a >= b, msg, f"{a!r} expected to be >= {b!r}")

    def assertAlmostEqual(self, a, b, places=7, msg=None, delta=None):
        near = abs(a - b) <= delta if delta is not None else round(abs(a - b), places) == 0
        self._check(a == b or near, msg, f"{a!r} != {b!r}")

    def assertIs(self, a, b, msg=None):
        self._check(a is b, msg, f"{a!r} is not {b!r}")

    def assertIsNot(self, a, b, msg=None):
        self._check(a is not b, msg, f"{a!r} is {b!r}")

    def assertIsNone(self, a, msg=None):
        self._check(a is None, msg, f"{a!r} is not None")

    def assertIsNotNone(self, a, msg=None):
        self._check(a is not None, msg, "unexpected None")

    def assertTrue(self, a, msg=None):
        self._check(a, msg, f"{a!r} expected to be true")

    def assertFalse(self, a, msg=None):
        self._check(not a, msg, f"{a!r} expected to be false")

    def assertIn(self, a, b, msg=None):
        self._check(a in b, msg, f"{a!r} expected to be in {b!r}")

    def assertNotIn(self, a, b, msg=None):
        self._check(a not in b, msg, f"{a!r} not expected to be in {b!r}")

    def assertIsInstance(self, a, kind, msg=None):
        self._check(isinstance(a, kind), msg, f"{a!r} expected to be a {kind!r}")

    def assertRaises(self, expected, call=None, *args, **kwargs):
        if call is None:
            return _Raises(expected)
        with _Raises(expected):
            call(*args, **kwargs)


def skip(reason):
    def decorate(test):
        def skipped(*args):
            raise SkipTest(reason)

        return skipped

    return decorate


def skipIf(condition, reason):
    return skip(reason) if condition else lambda test: test


def skipUnless(condition, reason):
    return skipIf(not condition, reason)


def expectedFailure(test):
    def inverted(*args):
        try:
            test(*args)
        except AssertionError:
            return
        raise AssertionError("unexpected success")

    return inverted


class _Result:
    def __init__(self):
        self.ran = self.failed = self.errors = self.skipped = 0


def _run_one(case, name, result):
    print(f"{name} ({type(case).__name__}) ...", end="")
    result.ran += 1
    try:
        case.setUp()
        try:
            getattr(case, name)()
        finally:
            case.tearDown()
        print(" ok")
    except SkipTest as reason:
        result.skipped += 1
        print(" skipped:", reason.args[0])
    except AssertionError as error:
        result.failed += 1
        print(" FAIL")
        sys.print_exception(error)
    except Exception as error:
        result.errors += 1
        print(" ERROR")
        sys.print_exception(error)


def _run_case(kind, result):
    case = kind()
    case.setUpClass()
    for name in dir(case):
        if name.startswith("test"):
            _run_one(case, name, result)
    case.tearDownClass()


def _cases(module):
    found = [getattr(module, name) for name in dir(module)]
    kinds = [kind for kind in found if isinstance(kind, type) and issubclass(kind, TestCase)]
    return [kind for kind in kinds if kind is not TestCase]


def main(module="__main__"):
    result = _Result()
    for kind in _cases(__import__(module) if isinstance(module, str) else module):
        _run_case(kind, result)
    print("-" * 70)
    print(f"Ran {result.ran} tests\n")
    if result.failed or result.errors:
        print(f"FAILED (failures={result.failed}, errors={result.errors})")
    elif result.skipped:
        print(f"OK (skipped={result.skipped})")
    else:
        print("OK")
