"""The subcommands of `apogeemq-store`, one module each: arguments in, tables or JSON lines out.

What they do lies in modules beside this folder (store_check, log_query, rebuild, repair, convert), which print nothing.
"""
