"""The report of a study: one HTML file that holds all it shows, and asks nothing of a network.

In come the tables of `results`, the figures, and what lies in results/STUDY of verifications, manifests, benchmarks
and logs. Out goes report.html (`page`): headline and warnings (`summary`), interactive charts (`charts`), the
figures, and where each number comes from (`provenance`). Its looks are in workflow/report.
"""
