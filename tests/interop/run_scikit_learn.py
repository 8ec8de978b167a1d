"""Estimators of scikit-learn on tensors, compared with NumPy arrays; run by test_array_api.py."""

import numpy as np

import treadle

RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(40, 5))
TARGET = DATA @ np.arange(5.0) + 1


def main() -> None:
    import sklearn
    from sklearn.decomposition import PCA
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, StandardScaler

    with sklearn.config_context(array_api_dispatch=True):
        pca = PCA(2, svd_solver="full")
        for estimator in (StandardScaler(), MinMaxScaler(), MaxAbsScaler(), pca):
            ours = estimator.fit_transform(treadle.tensor(DATA))
            if not isinstance(ours, treadle.Tensor):
                raise TypeError(f"{estimator} gave a {type(ours).__name__}")
            theirs = estimator.fit_transform(DATA)  # a component's sign is arbitrary
            np.testing.assert_allclose(np.abs(np.asarray(ours)), np.abs(theirs), atol=1e-6)
        model = Ridge(solver="svd").fit(treadle.tensor(DATA), treadle.tensor(TARGET))
        predicted = model.predict(treadle.tensor(DATA))
        expected = Ridge(solver="svd").fit(DATA, TARGET).predict(DATA)
        np.testing.assert_allclose(np.asarray(predicted), expected, atol=1e-6)


if __name__ == "__main__":
    main()
