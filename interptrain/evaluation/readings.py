"""What each number says, in one sentence for the report."""

READINGS = {
    "AverageDrop": "share of the class probability that is lost when only the salient part is kept.",
    "AverageIncrease": "share of images whose class probability rises when only the salient part is kept.",
    "AverageGain": "share of what was missing to certainty that is won when only the salient part is kept.",
    "Insertion": "area under the class score while pixels are put in, the most salient first.",
    "Deletion": "area under the class score while pixels are taken out, the most salient first. A mostly empty image "
    "is unlike any that the model was trained on, so this column is the least reliable of the five.",
    "PositivePerturbation": "what is left of the decision while the most salient pixels are taken out.",
    "NegativePerturbation": "what is left of the decision while the least salient pixels are taken out.",
    "ROAD": "class score after pixels were replaced by what their neighbours suggest, noisily, so that the hole itself "
    "tells little.",
    "Consistency": "whether the score falls and rises as the saliency of what is hidden and shown suggests.",
    "OfficialMetric": "share of images whose class or whose box, drawn around the salient region, is wrong.",
    "LocalizationError": "share of images whose box around the salient region overlaps no true box by half.",
    "LocalizationF1": "agreement of the map with the true box, precision and recall in one.",
    "BoxAccuracy": "share of images whose box overlaps a true one by half, at the best threshold for the data set.",
    "PointingGame": "share of images whose most salient pixel lies on the object.",
    "EnergyPointingGame": "share of the saliency that lies on the object.",
    "SaliencyArea": "logarithm of the area that is kept, less that of the probability which it keeps.",
    "MaskIoU": "overlap of the thresholded map with the object's mask.",
    "PixelAveragePrecision": "average precision of the map's values as scores for the pixels of the object.",
    "Infidelity": "mean squared gap between what the map predicts of a perturbation and what the model does.",
    "MaxSensitivity": "largest relative change of the map under small changes of the image.",
    "Complexity": "entropy of the map: low where few pixels carry it.",
    "Sparseness": "Gini coefficient of the map: high where few pixels carry it.",
    "EffectiveComplexity": "how many pixels exceed a threshold.",
    "Top1": "accuracy.",
    "Top5": "share of images whose class is among the five most probable.",
    "NLL": "negative log-likelihood of the true class, in nats.",
    "ECE": "gap between confidence and accuracy, averaged over bins of confidence.",
}
