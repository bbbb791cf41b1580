"""What the runs say, as tables: a row a run, means over seeds, intervals, what compression costs, and verdicts.

In come the packs' tables (`runs`), prompts and label mappings out of the ledger, and the claims of the catalog. Out
go the tables in results/STUDY/tables: runs, summary, bins, claims, matched, those for print, and what was learned.
`gallery` decides which backbones stand together in a figure. Nothing here trains, and nothing draws.
"""
