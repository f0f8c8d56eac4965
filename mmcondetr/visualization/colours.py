"""Okabe and Ito's colours, which are distinguishable with any colour vision."""

OKABE_ITO = dict(
    blue='#0072B2',
    vermilion='#D55E00',
    green='#009E73',
    purple='#CC79A7',
    orange='#E69F00',
    sky='#56B4E9',
    black='#000000',
)
