import unittest

from account import Latencies, Sequence


def taken(*numbers):
    s = Sequence()
    for n in numbers:
        s.take(n)
    return s


class SequenceTest(unittest.TestCase):
    def figures(self, s, last=5, doubtful=()):
        return s.lost(last, set(doubtful)), s.repeated, s.reordered

    def test_in_order_is_nothing(self):
        self.assertEqual(self.figures(taken(1, 2, 3, 4, 5)), (0, 0, 0))

    def test_a_hole_is_lost_wherever_it_is(self):
        self.assertEqual(self.figures(taken(2, 4)), (3, 0, 0))  # the first, one within, the last
        self.assertEqual(self.figures(taken()), (5, 0, 0))

    def test_a_hole_that_is_filled_is_reordered(self):
        self.assertEqual(self.figures(taken(1, 3, 4, 2, 5)), (0, 0, 1))

    def test_what_came_before_is_repeated(self):
        self.assertEqual(self.figures(taken(1, 2, 2, 3, 1, 4, 5)), (0, 2, 0))
        self.assertEqual(self.figures(taken(2, 1, 1, 3, 4, 5)), (0, 1, 1))

    def test_what_was_never_accepted_is_not_lost(self):
        self.assertEqual(self.figures(taken(1, 3), doubtful=[2, 4]), (1, 0, 0))
        self.assertEqual(self.figures(taken(1, 2, 3, 4, 5), doubtful=[2]), (0, 0, 0))


class LatenciesTest(unittest.TestCase):
    def test_percentiles(self):
        a, b = Latencies(), Latencies()
        for ms in range(1, 51):
            a.add(ms)
            b.add(ms + 50)
        a.merge(b)
        for got, want in zip(a.percentiles(0.5, 0.95, 1), (50, 95, 100)):
            self.assertAlmostEqual(got, want, delta=2 * Latencies.STEP)
        self.assertEqual(a.count, 100)

    def test_nothing_measured(self):
        self.assertEqual(Latencies().percentiles(0.5, 0.99), [0, 0])


if __name__ == "__main__":
    unittest.main()
