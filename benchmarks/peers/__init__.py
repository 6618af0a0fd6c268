"""The bundled reader beside other packages that read faces offline, on photos none of them (of ours) was trained on.

`python -m benchmarks.peers setup` makes the packages' environments, `run` asks them and threefold about the same faces
and prints the tables, `table` prints them again, `margins` shows what crop suits a package. See README.md beside this.

catalogue.py   which packages, what they read, the crop that suits each
install.py     their environments, made once with pip and npm
lists.py       lists of labelled photos, the face in each, and the crops on disk
asking.py      one process per package: crops in, answers out
scores.py      what the answers are worth, with intervals over persons
tables.py      the numbers as text
readers/       what runs inside the environments
"""
