"""The preference study: two clips side by side, a rater says which is better (two-alternative forced choice).

`pairs` makes a study's folder, `answers` keeps what raters say, `server` shows the pairs in a browser, `statistics`
turns answers into a report, `mturk` describes the study to Amazon Mechanical Turk.
"""
