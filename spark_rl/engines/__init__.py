"""Language models that answer prompts: one in this process (`local`), one behind a server (`openai`).

An engine reads and samples tokens. How a model is made or loaded is in `models`, policies without a model in `policies`.
"""
