"""What the words of a page mean."""

GLOSSARY = (
    ("point", "One value for each axis: the configuration that is compared. Its runs differ in the seed only."),
    ("mean, median", "The sum of the values over their number; the value that half of the runs do not exceed."),
    (
        "IQM",
        "The interquartile mean: the mean without the lowest and the highest quarter of the runs. A few bad seeds "
        "hardly move it, and it needs fewer seeds than the median.",
    ),
    (
        "interval",
        "A range made by a rule that covers the true mean in 95 of 100 studies (at the level 95 %). It is no range of "
        "the runs. Simultaneous intervals cover all means, or all differences, of a metric at once in so many studies, "
        "and are therefore wider.",
    ),
    (
        "corrected for the choice",
        "The best of many means is too good: chance helped it to the first place. The corrected estimate and its "
        "interval allow for that. Fresh seeds, which had no part in the choice, need no correction.",
    ),
    ("std", "The sample standard deviation: how much the seeds differ, whatever their number."),
    (
        "nonfinite, failed",
        "Runs with NaN or infinity in a result, and runs without one. Estimates are of the finite values only, and "
        "would look better than the method is if these were not counted.",
    ),
    ("difference", "The same seed at both points, subtracted: what the seeds have in common cancels out."),
    (
        "p, adjusted",
        "How often chance alone would show a difference at least as large, and the same after allowing for the number "
        "of comparisons. A large p is no proof of equality.",
    ),
    (
        "verdict",
        "What the adjusted test shows. “Not shown” does not mean equal: “same” is the verdict for a difference that "
        "lies within the margin. “Fails more”: the point has lost more runs than the one that it is compared with, so "
        "that the values of the others do not tell.",
    ),
    (
        "exploratory",
        "A metric outside of the declared primary ones: what it shows has to be confirmed by another study.",
    ),
    ("effect", "The mean difference in units of its standard deviation."),
    (
        "improvement",
        "The probability that a run at the point is better than one at the other, ties by half: what to expect of one "
        "more run.",
    ),
    ("detectable", "The smallest difference that so many seeds would have shown in four of five studies (power 80 %)."),
    ("seeds_needed", "The seeds at which the difference of interest would be shown so often, adjustment included."),
)
