"""`files DIR`: what belongs to the program and is no program: units, examples, monitoring, man pages, completions.

`command` lays them out. The man pages (`pages`) and the completions (`completions`) are made on the spot from what the
program itself knows (the arguments, the declarations of the settings, the catalogue of findings), so they can't say
anything else than it does.  All the rest lies in the wheel as it lies in a checkout.
"""
